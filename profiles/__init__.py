"""What a machine is, and how a model should run on it."""

from dualtune_edge.toolkit import telemetry

telemetry.disable()
