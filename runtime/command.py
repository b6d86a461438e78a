"""`dualtune-edge call`."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.cache.verified_files import forget
from dualtune_edge.runtime.decode.overflow import shorten_results
from dualtune_edge.runtime.decode.tokenizers_ahead import TokenizersAhead
from dualtune_edge.runtime.options import BundleFolder, Copied, Engine, Profile, Threads, TrustFile
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.runtime.variants import open_best, ways
from dualtune_edge.toolkit import console, limits, strict_json
from dualtune_edge.toolkit.errors import RequestError


def call(
    bundle: BundleFolder,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What the user says.")] = None,
    *,
    messages: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A conversation instead of TEXT: a JSON list of messages; - reads stdin."),
    ] = None,
    toolset: Annotated[str | None, typer.Option(metavar="NAME", help="Choose among the tools of this toolset.")] = None,
    date: Annotated[
        datetime | None,
        typer.Option(metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help="The date for templates that write one."),
    ] = None,
    engine: Engine = "ort",
    profile: Profile = None,
    threads: Threads = None,
    min_probability: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Answer `unsure` where the whole answer is less probable.")
    ] = 0.0,
    max_argument_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="The most tokens of the arguments.")
    ] = limits.ARGUMENT_TOKENS,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="End in an error once the answer takes longer.")
    ] = None,
    shorten: Annotated[
        bool, typer.Option("--shorten-results", help="Shorten the longest tool results of a conversation too long.")
    ] = False,
    trust: TrustFile = None,
    copied: Copied = True,
    rehash: Annotated[bool, typer.Option("--rehash", help="Hash files again that have not changed since.")] = False,
    as_json: console.AsJson = False,
) -> None:
    """Answer a message with a tool call.

    Every file of the bundle is hashed before its first use, and again when it has changed. Earlier turns, with their
    calls and the tools' results, go into --messages as OpenAI's API has them. A TEXT of - is read from stdin.

    Example:
        dualtune-edge call my-bundle "what changed in the last three commits?"

    """
    request = _request(text, messages)
    if rehash:
        forget()
    opened = open_bundle(bundle, verify="once", trust=trust)
    found = ways(opened, profile=profile, threads=threads)
    warnings = [*found.best.resolution.warnings, *filter(None, [opened.overdue])]
    for warning in warnings:
        console.warn(warning)
    ahead = TokenizersAhead(opened)
    with Agent.of(open_best(found, engine), tokenizers=ahead, copied=copied) as agent:
        answer = agent.call(
            request,
            toolset=toolset,
            date=date,
            min_probability=min_probability,
            max_argument_tokens=max_argument_tokens,
            deadline=deadline,
            on_overflow=shorten_results if shorten else None,
        )
    for note in dict.fromkeys(answer.notes):
        console.warn(note)
    if answer.placement.instead not in {"", *warnings}:
        console.warn(answer.placement.instead)
    console.result(answer, _line(answer), as_json=as_json)


def _request(text: str | None, messages: Path | None) -> str | list[Any]:
    """TEXT, or what FILE holds: just one of the two."""
    if (text is None) == (messages is None):
        raise RequestError(
            "request",
            found="neither TEXT nor --messages" if text is None else "both TEXT and --messages",
            expected="one of them",
            fix='Say: dualtune-edge call BUNDLE "…"',
        )
    if messages is None:
        return _said() if text == "-" else text or ""
    where = "stdin" if str(messages) == "-" else str(messages)
    expected = "a JSON list of messages"
    try:
        value = strict_json.loads(_stdin() if where == "stdin" else messages.read_bytes())
    except OSError as error:
        raise RequestError(
            where, found=error.strerror or str(error), expected=expected, fix="Check the path."
        ) from None
    except strict_json.JsonError as error:
        fix = "Say the text itself in place of --messages, or write it as JSON."
        raise RequestError(where, found=str(error), expected=expected, fix=fix) from None
    if not isinstance(value, list):
        found = "a JSON object" if isinstance(value, dict) else "one JSON value"
        raise RequestError(where, found=found, expected=expected, fix="Put the messages into [ ].")
    return value


def _said() -> str:
    """The text on stdin, without the end of its last line."""
    try:
        return _stdin().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        found = f"bytes that are not UTF-8, at {error.start:,}"
        raise RequestError("stdin", found=found, expected="a text in UTF-8", fix="Convert it.") from None


def _stdin() -> bytes:
    return sys.stdin.buffer.read() if sys.stdin else b""  # None: the process was started without one


def _line(answer: CallResult) -> str:
    """The call as one reads it: `git.log(max_count=3)  98.7% (git 99.1%, arguments 95.0%; next: diff 1.1%)  412 ms`."""
    name = f"{answer.toolset}.{answer.tool}"
    if answer.tool is None:
        what = f"{answer.toolset}: no tool"
    elif answer.arguments is None:
        what = f"{name}(…)"
    else:
        values = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in answer.arguments.items())
        what = f"{name}({', '.join(values)})"
    stages = [(answer.toolset, answer.toolset_probability), ("arguments", answer.arguments_probability)]
    others = [f"{stage} {probability:.1%}" for stage, probability in stages if probability is not None]
    following = [f"next: {other.tool} {other.probability:.1%}" for other in answer.alternatives[:1]]
    details = "; ".join(filter(None, (", ".join(others), *following)))
    unsure = "unsure, " if answer.outcome == "unsure" else ""
    behind = f" ({details})" if details else ""
    line = f"{what}  {unsure}{answer.probability:.1%}{behind}  {answer.timings_ms.total:.0f} ms"
    unknown = ", ".join(answer.not_in_conversation)
    return f"{line}\nnot in the conversation: {unknown}" if unknown else line
