"""What the service says of itself: a log of calls, metrics and spans."""
