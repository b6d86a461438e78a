"""One tiny bundle: two toolsets, seeded random weights, external and merged adapters; and how to seal it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dualtune_edge.toolkit.files import sha256_file

FILES = [
    {
        "name": "read",
        "description": "Read a file",
        "inputSchema": {
            "properties": {"path": {"type": "string", "maxLength": 8}, "lines": {"type": "integer", "maximum": 99}},
            "required": ["path"],
        },
    },
    {
        "name": "sort",
        "description": "Sort a folder",
        "inputSchema": {"properties": {"by": {"enum": ["name", "size", "größe"]}}, "required": ["by"]},
    },
    {"name": "roots", "description": "List roots", "inputSchema": {"type": "object", "properties": {}}},
]
GIT = [
    {
        "name": "log",
        "description": "History",
        "inputSchema": {
            "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["count"],
        },
    }
]
SPEC = """\
base: base
toolsets:
  - name: files
    description: Files and folders
    tools: files.json
    selection: chooser
    arguments: writers
  - name: git
    description: History
    tools: git.json
    selection: {path: chooser, mode: merged}
"""


def export_bundle(desk: Path) -> Path:
    """Write base, adapters and tools into `desk`, and export them: the bundle's folder."""
    from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
    from peft import LoraConfig

    from dualtune_edge.export import run
    from dualtune_edge.export.spec.document import read_spec

    write_checkpoint(desk / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("chooser", "writers/read", "writers/sort")):
        write_adapter(desk / name, desk / "base", config, seed=seed)
    (desk / "files.json").write_text(json.dumps({"tools": FILES}), encoding="utf-8")
    (desk / "git.json").write_text(json.dumps({"tools": GIT}), encoding="utf-8")
    (desk / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    run.run(read_spec(desk / "dualtune.yaml"), desk / "bundle")
    return desk / "bundle"


def write_manifest(bundle: Path, manifest: object) -> None:
    """As an attacker would: canonical, and with its hash."""
    data = (json.dumps(manifest, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    (bundle / "manifest.json").write_bytes(data)
    seal = f"{hashlib.sha256(data).hexdigest()}  manifest.json\n"
    (bundle / "manifest.sha256").write_text(seal, encoding="utf-8", newline="\n")


def change_manifest(bundle: Path, apply: Callable[[dict[str, Any]], object]) -> None:
    """Apply a change to the manifest, and seal it again."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    apply(manifest)
    write_manifest(bundle, manifest)


def reseal(bundle: Path) -> None:
    """Bring sizes and hashes in the manifest up to date."""

    def update(manifest: dict[str, Any]) -> None:
        for entry in manifest["files"]:
            file = bundle / entry["path"]
            entry["size"], entry["sha256"] = file.stat().st_size, sha256_file(file)

    change_manifest(bundle, update)
