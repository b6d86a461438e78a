"""One call: the choices, the arguments, and what of the prompt is known already."""
