"""The build side: a base model and its adapters into a bundle."""

import os

from dualtune_edge.toolkit import telemetry

telemetry.disable()
os.environ["HF_HUB_OFFLINE"] = "1"  # all input is local; read by huggingface_hub as it is imported
# Read by OpenMP as PyTorch is imported. Threads that spin while they wait take the cores from those they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
