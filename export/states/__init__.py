"""Prefix states: the KV cache after each prompt's static prefix, computed once and stored."""
