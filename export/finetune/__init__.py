"""Decoupled fine-tuning: trajectories into adapters."""
