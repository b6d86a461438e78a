"""What turns a finished bundle into a release: its signature."""
