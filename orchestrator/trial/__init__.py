"""The computation of one trial in one process; imports neither Ray nor MLflow."""
