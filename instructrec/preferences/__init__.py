"""Preference pairs: made without labels, written, read, trained on, and ranked."""

PER_ORIGIN, HELD_OUT_PER_ORIGIN = 2000, 300
"""Pairs of one origin that the train split, or another one, has at most by default."""
