"""The purity step: the request and its answer, the scores of Eq. 1 to 7, their tuning (Eq. 8), and the detectors."""
