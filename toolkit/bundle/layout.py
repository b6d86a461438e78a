"""Names of a bundle's files and folders. docs/bundle-format.md describes each."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.sha256"  # of the manifest, as `sha256sum -c` reads it
SIGNATURE: Final = "model.sig"  # of all other files; where there is none, the bundle is not signed
MODEL_DIR: Final = "model"  # the base graph with its LoRA slots; opens in plain onnxruntime_genai.Model
ADAPTERS_DIR: Final = "adapters"  # one .onnx_adapter file an external adapter
MERGED_DIR: Final = "merged"  # one graph folder a merged adapter
PROMPTS_DIR: Final = "prompts"  # one PromptPlan a stage
STATES_DIR: Final = "states"  # the KV state of a stage's static prefix, one file each
PROFILES_DIR: Final = "profiles"  # the hardware profile of each variant, as the export read it
VARIANTS_DIR: Final = "variants"  # what a variant's model does not share: a folder each, inside as the bundle's own
PRIMARY: Final = "model"  # name of the model that the manifest's own fields describe
