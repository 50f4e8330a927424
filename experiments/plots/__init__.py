"""The paper's figures, and the pictures of a report."""
