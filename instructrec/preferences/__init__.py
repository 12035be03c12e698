"""Preference pairs: made without labels, written, read, trained on, and ranked."""
