"""The graphs of one model: built, quantized, given their adapters, and tried."""
