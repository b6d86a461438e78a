"""One call: the choices, the arguments, and the texts."""
