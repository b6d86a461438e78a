"""The base model's folder: read, checked, and its weights one at a time."""
