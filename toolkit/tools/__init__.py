"""Tools and toolsets: the files they come in, and their schemas."""
