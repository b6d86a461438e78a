"""Builds the graphs of a model with their adapters, and tries them out."""
