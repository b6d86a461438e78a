"""`dualtune-edge`: every command, and the module that holds it. A command is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dualtune_edge.toolkit import shell
from dualtune_edge.toolkit.shell import Row

COMMANDS: Final = {
    "export": Row(
        "dualtune_edge.export.command", "export", "Compile a base model and its LoRA adapters into a bundle."
    ),
    "trace": Row(
        "dualtune_edge.export.optimum.trace", "trace", "Export a base's graph by Optimum, for `export --graph`."
    ),
    "call": Row("dualtune_edge.runtime.command", "call", "Answer a message with a tool call."),
    "agent": Row(
        "dualtune_edge.runtime.agent.command", "agent", "Do a task with the tools of MCP servers, and answer."
    ),
    "serve": Row("dualtune_edge.runtime.serve.command", "serve", "Serve a bundle to OpenAI's clients."),
    "inspect": Row("dualtune_edge.runtime.inspection", "inspect", "Tell what a bundle holds."),
    "evaluate": Row("dualtune_edge.runtime.evaluate.command", "evaluate", "Count how often a bundle is right."),
    "bench": Row("dualtune_edge.runtime.bench.command", "bench", "Measure what a bundle's calls cost here."),
    "profiles": Row("dualtune_edge.profiles.command", "profiles", "Show hardware profiles, and which one fits here."),
    "doctor": Row(
        "dualtune_edge.runtime.doctor.command",
        "doctor",
        "Tell whether this machine, and a bundle on it, are fit to run.",
    ),
    "data": Row(
        "dualtune_edge.export.data.command", "data", "Check, split, import and generate conversations to train with."
    ),
    "init": Row("dualtune_edge.export.init.command", "init", "Write a dualtune.yaml for new adapters."),
    "finetune": Row(
        "dualtune_edge.export.finetune.command",
        "finetune",
        "Train adapters by decoupled fine-tuning.",
    ),
    "sign": Row(
        "dualtune_edge.export.release.command", "sign", "Sign a bundle, in the format of OpenSSF Model Signing."
    ),
    "verify": Row(
        "dualtune_edge.export.release.command", "verify", "Verify a bundle's signature; or simulate the NPU."
    ),
    "describe": Row(
        "dualtune_edge.export.release.command",
        "describe",
        "Write a release's SBOM, provenance and model card.",
    ),
    "pack": Row("dualtune_edge.export.release.command", "pack", "Pack a bundle into one file, to be installed."),
    "diff": Row("dualtune_edge.export.release.command", "diff", "Tell what an update costs."),
    "install": Row(
        "dualtune_edge.runtime.store.command",
        "install",
        "Install a pack into a store, and make it the current version.",
    ),
    "rollback": Row("dualtune_edge.runtime.store.command", "rollback", "Make the version before the current one."),
    "list": Row("dualtune_edge.runtime.store.command", "list_", "List the versions of a store."),
    "gc": Row("dualtune_edge.runtime.store.command", "gc", "Remove what a store does not need."),
    "demo": Row(
        "dualtune_edge.export.demo.command", "demo", "Export the built-in kit, make calls with it and do a task."
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Ends in `SystemExit`: 0, 2 for wrong flags, or the error's own code (docs/errors.md)."""
    shell.run(COMMANDS, argv)
