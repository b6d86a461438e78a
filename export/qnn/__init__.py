"""Static graphs in integers for compilers of NPUs, from the same weights as the dynamic graph."""
