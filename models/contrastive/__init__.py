"""Contrastive encoders (SimCLR and CSI): configuration, views, losses, training."""
