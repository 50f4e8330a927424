"""Trials on Ray; the only folder that imports it. `python -m orchestrator.cluster` checks a cluster.yaml."""
