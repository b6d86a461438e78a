"""Writes the bundles that table.py measures: a published shape, random weights, real tool lists.

    python benchmarks/shapes.py OUT [--shape qwen2.5-0.5b]

    OUT/base, r8, r32, r32b     the checkpoint, and rsLoRA adapters on all seven modules
    OUT/tools14                 the filesystem server's 14 tools in full JSON; two external adapters, r=32
    OUT/tools117                117 tools by name and first sentence, the same adapters
    OUT/tools117_full           the same 117 in full JSON for the choice: 31,000 tokens
    OUT/decode                  external r=8, external r=32, and the latter merged: to compare their decoding

Speed does not ask what weights say. The tokenizer does count, so it is a BPE of 2,048 tokens made from these tool
lists; the table tells how many tokens a prompt has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.random_checkpoint import CHATML, MODULES, Shape, write_adapter, write_checkpoint
from dualtune_edge_kit.random_checkpoint import SHAPES as PUBLISHED
from dualtune_edge_kit.training.data import toolsets
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from dualtune_edge.export import run
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.parts import AdapterSpec, TemplatesSpec, ToolsetSpec

SHAPES: Final = PUBLISHED | {"small": Shape(64, 128, 1, 4, 2, 4096, 32_768)}  # to count tokens: they are the same
_SERVICES: Final = ("local", "drive", "vault", "archive", "mirror")  # each with the tools of both servers
_TEMPLATES: Final = FOLDER / "templates"
_ARGUMENTS: Final = _TEMPLATES / "arguments.jinja"  # shows the chosen tool alone
_ABOUT: Final = (
    "The {} of {} in the service {}, written as that service itself lists it. What is not absolute begins at its root."
)
_ROLES: Final = ("system", "user", "assistant")
_LISTS: Final = {
    "tools14": TemplatesSpec(),
    "tools117": TemplatesSpec(selection=Path(__file__).parent / "first_sentences.jinja", arguments=_ARGUMENTS),
    "tools117_full": TemplatesSpec(arguments=_ARGUMENTS),
}


def main(
    out: Annotated[Path, typer.Argument(help="Folder that gets everything; nothing may be there yet.")],
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "qwen2.5-0.5b",
) -> None:
    """Write a random checkpoint of a published shape, adapters for it, and four bundles."""
    out.mkdir(parents=True)
    lists = {name: tools(name) for name in _LISTS}
    for name, listed in lists.items():
        (out / f"{name}.json").write_text(json.dumps({"tools": listed}), encoding="utf-8")
    checkpoint(out / "base", shape, lists["tools14"] + tools("git"))
    for seed, (name, rank) in enumerate((("r8", 8), ("r32", 32), ("r32b", 32)), start=1):
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM"
        )
        write_adapter(out / name, out / "base", config, seed=seed)
    for name, templates in _LISTS.items():
        export(out, name, (two_adapters(out, name, templates),))
    rivals = (("external_r8", "r8", "external"), ("external_r32", "r32", "external"), ("merged_r32", "r32", "merged"))
    export(
        out,
        "decode",
        tuple(
            ToolsetSpec(
                name=name,
                tools=out / "tools14.json",
                selection=AdapterSpec.model_validate({"path": out / adapter, "mode": mode}),
            )
            for name, adapter, mode in rivals
        ),
    )


def tools(name: str) -> list[dict[str, Any]]:
    """A tool list as an MCP server tells it."""
    if name not in {"tools117", "tools117_full"}:
        server = "filesystem" if name == "tools14" else name
        listed: list[dict[str, Any]] = json.loads(toolsets.servers_file(server).read_text(encoding="utf-8"))["tools"]
        return listed
    both = tools("tools14") + tools("git")
    named = [(service, tool) for service in _SERVICES for tool in both][:117]
    if name == "tools117":
        return [{**tool, "name": f"{service}_{tool['name']}"} for service, tool in named]
    return [_described(service, tool) for service, tool in named]


def _described(service: str, tool: dict[str, Any]) -> dict[str, Any]:
    """The tool with every argument described, as large lists have it: these two servers leave most to their names."""
    schema = tool["inputSchema"]
    about = {
        name: {**value, "description": f"{value.get('description', '')} {_ABOUT.format(name, tool['name'], service)}"}
        for name, value in schema.get("properties", {}).items()
    }
    return {**tool, "name": f"{service}_{tool['name']}", "inputSchema": {**schema, "properties": about}}


def checkpoint(folder: Path, shape: str, listed: list[dict[str, Any]]) -> None:
    """The base, with a tokenizer that was trained on the tools' JSON."""
    write_checkpoint(folder, SHAPES[shape])
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    size = min(2048, SHAPES[shape].vocabulary)
    trainer = BpeTrainer(
        vocab_size=size, special_tokens=list(CHATML), initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    texts = (*(json.dumps(tool) for tool in listed), *_ROLES * 100)  # one token each, as in published tokenizers
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = {"bos_token_id": tokenizer.token_to_id(CHATML[0]), "eos_token_id": tokenizer.token_to_id(CHATML[2])}
    for path in (folder / "config.json", folder / "generation_config.json"):
        if path.exists():
            path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **end}), encoding="utf-8")


def two_adapters(out: Path, name: str, templates: TemplatesSpec) -> ToolsetSpec:
    """One adapter selects, another writes the arguments of every tool."""
    listed = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))["tools"]
    writer = AdapterSpec(path=out / "r32b")
    takers = [tool["name"] for tool in listed if tool.get("inputSchema", {}).get("properties")]
    return ToolsetSpec(
        name=name,
        tools=out / f"{name}.json",
        selection=AdapterSpec(path=out / "r32"),
        arguments=dict.fromkeys(takers, writer),
        templates=templates,
    )


def export(out: Path, name: str, toolset: tuple[ToolsetSpec, ...]) -> None:
    """A bundle, not compared with PEFT: random weights prove nothing about accuracy."""
    spec = ExportSpec.model_validate({"base": out / "base", "toolsets": toolset, "parity": "off"})
    run.run(spec, out / name)


if __name__ == "__main__":
    typer.run(main)
