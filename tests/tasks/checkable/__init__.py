"""Tasks for the two real servers, each with a check of what it leaves behind or of what it finds out."""
