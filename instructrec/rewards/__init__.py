"""Rewards: what a response is worth, by itself, against accepted answers, to a model or to a mentor."""
