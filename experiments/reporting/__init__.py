"""Statistics, tables, figures and files made from the frames `trials` and `rounds`, without torch, ray or mlflow."""
