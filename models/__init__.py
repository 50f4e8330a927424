"""Networks and what they compute; knows nothing of rounds or strategies."""
