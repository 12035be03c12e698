"""Zero-shot ability on held-out instructions: suites, scoring, metrics, statistics and the report."""
