"""Rounds over a table of image addresses that is too large for one folder or one machine."""
