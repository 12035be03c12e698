"""The room for the human mentor: a page on the loopback interface that collects preferences and scores."""
