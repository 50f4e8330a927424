"""The commands that a user types, one per table, with presets, the paper's numbers and reports."""
