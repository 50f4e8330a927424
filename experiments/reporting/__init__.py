"""Statistics, tables, figures and files made from the frames `trials` and `rounds`; no torch, ray or mlflow."""
