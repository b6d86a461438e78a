"""The base's graph: built, extended by slots for LoRA, checked."""
