"""The exported graphs compared with PEFT in float32, at every export, driven by the device's own code."""
