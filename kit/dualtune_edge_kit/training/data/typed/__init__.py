"""Requests as people type them: their wordings, values and conversations."""
