"""What a user types: one command a table, presets, the paper's numbers, reports."""
