"""How large the files of a bundle become, and what a model takes in memory, before anything is built."""
