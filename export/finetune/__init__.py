"""Decoupled fine-tuning: makes the adapters, each with its own loss mask."""
