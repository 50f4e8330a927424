"""What one process does for one trial; imports neither Ray nor MLflow."""
