"""Weights and values as integers: plain rounding, k-quant and GPTQ."""
