"""Runs trials, one or thousands, and never loses a round."""
