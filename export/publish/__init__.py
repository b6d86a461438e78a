"""The finished bundle: its manifest, its report, and how a finished one is amended."""
