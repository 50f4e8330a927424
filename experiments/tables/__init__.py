"""The rows, columns and cells of the paper's tables and of the tables of comparisons."""
