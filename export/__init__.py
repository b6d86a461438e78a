"""The build side: a base model and its adapters into a bundle."""

from dualtune_edge.toolkit import telemetry

telemetry.disable()
