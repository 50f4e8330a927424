"""Numerical methods that strategies share; none of them knows what a pool is."""
