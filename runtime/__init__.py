"""All that the device needs: open a bundle, and answer a request with a tool call."""

from dualtune_edge.toolkit import telemetry

telemetry.disable()
