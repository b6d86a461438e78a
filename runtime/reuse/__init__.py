"""What of a prompt is not computed again: KV states of the bundle, and those of earlier prompts."""
