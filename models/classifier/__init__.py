"""Classifiers: configuration, inputs, training and outputs. Importing a recipe needs no torch."""
