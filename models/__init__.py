"""Networks and their computations, independent of rounds and strategies."""
