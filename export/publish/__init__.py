"""The finished bundle: its manifest, the report, and files that are added later."""
