"""Prefix states: the KV cache after the static prefix of each prompt, computed once and stored."""
