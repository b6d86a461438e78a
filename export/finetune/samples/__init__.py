"""What a run learns: trajectories → turns → samples, each with its mask."""
