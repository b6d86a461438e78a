"""The base that adapters are trained on: whole, in fewer bits, or shared out among processes."""
