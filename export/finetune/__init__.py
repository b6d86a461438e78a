"""Decoupled fine-tuning: makes the adapters, each with its own loss mask."""

from dualtune_edge.export.finetune.base import Base
from dualtune_edge.export.finetune.report import FinetuneReport, Step
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import finetune

__all__ = ["Base", "FinetuneReport", "FinetuneSettings", "Step", "finetune"]
