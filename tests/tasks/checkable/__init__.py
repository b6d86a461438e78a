"""Tasks for the two real servers, what runs them, and the table of what bundles make of them."""
