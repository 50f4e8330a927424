"""Classifiers: how they are configured, fed, trained, and what they compute. Importing a recipe needs no torch."""
