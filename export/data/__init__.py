"""Conversations to train with: checked against the tools, and split into parts."""
