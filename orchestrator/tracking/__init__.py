"""The ledger mirrored to MLflow; beside the reader of its results the only folder that imports it."""
