"""The results of a grid as values: frames, statistics, comparisons, costs; no layout."""
