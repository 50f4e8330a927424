"""The paper's tables and those of comparisons: what their rows, columns and cells are."""
