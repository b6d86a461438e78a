"""What of this machine fits which bundle, and what is wrong: `dualtune-edge doctor`."""
