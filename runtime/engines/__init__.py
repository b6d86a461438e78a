"""Engines: models that run one token sequence under one adapter."""
