"""Static graphs in integers for NPU compilers, from the same weights as the dynamic graph."""
