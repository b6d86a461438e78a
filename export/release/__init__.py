"""What turns a finished bundle into a release: its signature, its documents and its pack."""
