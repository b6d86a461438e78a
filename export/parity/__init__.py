"""Parity: the exported graphs against PEFT in float32, at every export, driven by the device's own code."""
