"""The model card of a bundle: Markdown with the head that Hugging Face's hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from dualtune_edge.export.release.subject import Subject
from dualtune_edge.runtime.evaluate.report import Evaluation
from dualtune_edge.runtime.evaluate.text import rows
from dualtune_edge.toolkit.bundle.licences import UNKNOWN
from dualtune_edge.toolkit.bundle.parity import ParityReport, StageParity

_HEAD: Final = re.compile(r"[A-Za-z0-9.-]+")  # one identifier, no expression


def model_card(subject: Subject) -> str:
    """The card, the same for the same bundle and evaluation."""
    head = yaml.safe_dump(_head(subject), sort_keys=False, allow_unicode=True, width=1000)
    lines = [f"---\n{head}---", f"# {_title(subject)}", *_about(subject), *_parts(subject)]
    lines += _parity(subject.bundle.parity)
    if subject.evaluation:
        lines += _evaluation(subject.evaluation)
    lines += _limits(subject)
    return "\n\n".join(lines) + "\n"


def _title(subject: Subject) -> str:
    return f"{subject.name} {subject.version}" if subject.version else subject.name


def _head(subject: Subject) -> dict[str, Any]:
    """The metadata; a licence that is no single one of SPDX is `other`, with its expression as the name."""
    expression = subject.licences.expression if subject.licences else UNKNOWN
    single = _HEAD.fullmatch(expression) and not expression.startswith("LicenseRef-")
    head: dict[str, Any] = {"license": expression.lower() if single else "other"}
    if not single:
        head["license_name"] = expression.lower().replace(" ", "-").strip("()")
    head |= {
        "base_model": subject.bundle.manifest.base.name,
        "base_model_relation": "quantized",
        "pipeline_tag": subject.bundle.manifest.base.task,
        "library_name": "dualtune-edge",
        "tags": ["onnx", "lora", "tool-calling"],
    }
    return head | ({"model-index": [_index(subject, subject.evaluation)]} if subject.evaluation else {})


def _index(subject: Subject, evaluation: Evaluation) -> dict[str, Any]:
    """Results as the hub lists them."""
    metrics = [
        {"type": "accuracy", "name": name, "value": round(share.share, 4)} for name, share, _ in rows(evaluation)
    ]
    dataset = {"name": evaluation.data, "type": evaluation.data}
    task = {"type": subject.bundle.manifest.base.task, "name": "Tool calling"}
    return {"name": _title(subject), "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}


def _about(subject: Subject) -> Iterator[str]:
    manifest = subject.bundle.manifest
    toolsets = ", ".join(f"{entry.toolset.name} ({len(entry.toolset.tools)} tools)" for entry in manifest.toolsets)
    yield (
        f"Answers messages with tool calls on a CPU. Made by dualtune-edge of {manifest.base.name} "
        f"({manifest.base.architecture}) and {len(manifest.adapters)} LoRA adapters."
    )
    facts = [
        ("toolsets", toolsets),
        ("weights", manifest.quantization.line(manifest.cache.layers)),
        ("context", f"{manifest.base.context_length:,} tokens"),
        ("size", f"{subject.bundle.size_bytes / 1e6:,.1f} MB"),
        ("`manifest.json`", f"SHA-256 `{subject.manifest_sha256}`"),
    ]
    yield _table(("", ""), facts)


def _parts(subject: Subject) -> Iterator[str]:
    """Base and adapters, with licences and content hashes."""
    manifest = subject.bundle.manifest
    contents = {"base": manifest.base.fingerprint} | {entry.name: entry.sha256 for entry in manifest.adapters}
    parts = []
    for name, content in contents.items():
        part = subject.licence(name)
        texts = ", ".join(f"`{text}`" for text in part.texts) if part else ""
        parts.append((name, (part and part.licence) or "unknown", texts, f"`{content[:12]}`"))
    yield "## Parts and licences"
    yield _table(("part", "licence", "texts", "content"), parts)


def _parity(report: ParityReport | None) -> Iterator[str]:
    yield "## Compared with PEFT in float32"
    if report is None or report.skipped is not None or not report.stages:
        yield f"Not compared: {report.skipped if report and report.skipped else 'no report'}."
        return
    yield f"{report.line()[0].upper()}{report.line()[1:]}."
    header = ("stage", "positions", "same most probable token", "mean KL (nats)", "choices", "arguments")
    yield _table(header, map(_stage, report.stages))


def _stage(stage: StageParity) -> tuple[str, ...]:
    choices = f"{stage.choices - stage.flips} of {stage.choices}" if stage.choices else ""
    arguments = f"{stage.exact} of {stage.arguments}" if stage.arguments else ""
    return stage.stage, str(stage.positions), f"{stage.top1:.1%}", f"{stage.mean_kl:.4f}", choices, arguments


def _evaluation(evaluation: Evaluation) -> Iterator[str]:
    yield "## Evaluation"
    yield f"{evaluation.turns} turns of `{evaluation.data}`, with 95% intervals (Wilson's)."
    shares = [
        (name, f"{share.right} of {share.of}", f"{share.share:.1%}", f"{share.low:.1%} to {share.high:.1%}")
        for name, share, _ in rows(evaluation)
    ]
    yield _table(("score", "right", "share", "interval"), shares)


def _limits(subject: Subject) -> Iterator[str]:
    yield "## Limits"
    yield (
        "A call has a declared tool and arguments that its schema takes; it may still be the wrong call. Applications "
        "ask before they do what cannot be undone."
    )
    unknown = subject.licences.unknown if subject.licences else ("every part",)
    if unknown:
        yield f"No licence is known of: {', '.join(unknown)}."


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; bars and line breaks in cells are escaped."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
