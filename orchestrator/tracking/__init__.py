"""The mirror of the ledger in MLflow; apart from the reader of its results the only folder that imports MLflow."""
