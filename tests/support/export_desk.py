"""A user's desk: a base, tool lists, adapters and two specs; and an export of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from dualtune_edge.export.publish.report import ExportReport
from dualtune_edge.export.run import run
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import EdgeError
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan

SpecName = Literal["external", "mixed"]
FILES: Final = (
    {"name": "read", "description": "Read a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
    {"name": "write", "description": "Write a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
    {"name": "roots", "description": "List roots", "inputSchema": {"type": "object", "properties": {}}},
)
GIT: Final = ({"name": "log", "description": "History", "inputSchema": {"properties": {"count": {"type": "integer"}}}},)
SPECS: Final[dict[SpecName, str]] = {
    "external": """\
base: base
toolsets:
  - name: files
    description: Files and folders
    tools: files.json
    selection: chooser
    arguments: writers
""",
    "mixed": """\
base: base
mode: merged
release: {product: desk, version: 3, expires: 2030-01-31}
toolsets:
  - name: files
    description: Files and folders
    tools: files.json
    selection: {path: chooser, mode: external}
    arguments: writers
  - name: git
    description: History
    tools: git.json
    selection: {path: chooser, mode: external}
""",
}


@dataclass(frozen=True)
class Exported:
    """A desk, and what was exported of it."""

    desk: Desk
    bundle: Path
    report: ExportReport

    @property
    def manifest(self) -> Manifest:
        return Manifest.model_validate_json((self.bundle / "manifest.json").read_bytes())

    @property
    def errors_before_quantization(self) -> dict[str, float]:
        """The largest differences from PEFT's logits, by stage."""
        stages = json.loads((self.bundle / "parity.json").read_bytes())["stages"]
        return {stage["stage"]: stage["before_quantization"] for stage in stages}

    def plan(self, path: str) -> PromptPlan:
        return PromptPlan.model_validate_json((self.bundle / path).read_bytes())


@dataclass(frozen=True)
class Desk:
    """`external.yaml` keeps two adapters of one toolset beside the base; `mixed.yaml` merges some, for two toolsets."""

    folder: Path

    @classmethod
    def write_to(cls, folder: Path) -> Desk:
        from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
        from peft import LoraConfig

        desk = cls(folder)
        write_checkpoint(folder / "base", Shape(64, 96, 3, 4, 2, 288, 2048))
        config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
        for seed, name in enumerate(("chooser", "writers/read", "writers/write")):
            write_adapter(folder / name, folder / "base", config, seed=seed)
        desk.write("base/README.md", "---\nlicense: apache-2.0\n---\n")
        desk.write("base/LICENSE", "A licence's words.\n")
        desk.write("chooser/README.md", "---\nlicense: mit\n---\n")
        desk.write("files.json", json.dumps({"tools": FILES}))
        desk.write("git.json", json.dumps({"tools": GIT}))
        for spec, text in SPECS.items():
            desk.write(f"{spec}.yaml", text)
        return desk

    def copy(self, folder: Path) -> Desk:
        return Desk(Path(shutil.copytree(self.folder, folder)))

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def add(self, line: str) -> None:
        """To `external.yaml`."""
        self.write("external.yaml", SPECS["external"] + line)

    def change(self, old: str, new: str) -> None:
        """In `external.yaml`."""
        assert old in SPECS["external"]
        self.write("external.yaml", SPECS["external"].replace(old, new))

    def rewrite(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a JSON file."""
        value = json.loads((self.folder / name).read_bytes())
        change(value)
        self.write(name, json.dumps(value))

    def spec(self, name: SpecName) -> ExportSpec:
        return read_spec(self.folder / f"{name}.yaml")

    def export(self, name: SpecName, bundle: Path) -> Exported:
        return Exported(self, bundle, run(self.spec(name), bundle))

    def refused(self, error: type[EdgeError], *words: str) -> None:
        """Export `external.yaml`: an error of this class, with these words, and nothing is written."""
        output = self.folder / "out" / "bundle"
        output.parent.mkdir()
        with pytest.raises(error) as caught:
            self.export("external", output)
        assert type(caught.value) is error
        for word in words:
            assert word in str(caught.value)
        assert list(output.parent.iterdir()) == []
