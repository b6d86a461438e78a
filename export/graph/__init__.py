"""The base graph: built, given LoRA slots, checked."""
