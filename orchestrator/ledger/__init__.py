"""The ledger: all records of an output folder, on disk, the truth. `python -m orchestrator.ledger` checks it."""
