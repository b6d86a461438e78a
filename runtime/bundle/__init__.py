"""A bundle's folder: checked whole before any of it is used."""
