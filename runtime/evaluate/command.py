"""`dualtune-edge evaluate`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import typer
from rich.console import Console
from rich.status import Status

from dualtune_edge.runtime.agent.approval import Policy, read_policy
from dualtune_edge.runtime.bench.requests import read_requests, spread
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.evaluate.answers import Answer, answers
from dualtune_edge.runtime.evaluate.bfcl import is_bfcl, read_bfcl
from dualtune_edge.runtime.evaluate.cases import Case
from dualtune_edge.runtime.evaluate.endpoint import Endpoint, http_post
from dualtune_edge.runtime.evaluate.multi_turn.evaluation import WantedDialogues, do_dialogues
from dualtune_edge.runtime.evaluate.multi_turn.rows import is_multi_turn
from dualtune_edge.runtime.evaluate.page import page, refuse_unwritable, write_page
from dualtune_edge.runtime.evaluate.report import Evaluation, Side, compare, refuse_others, side
from dualtune_edge.runtime.evaluate.tasks.evaluation import WantedTasks, do_tasks
from dualtune_edge.runtime.evaluate.tasks.page import tasks_page
from dualtune_edge.runtime.evaluate.tasks.report import TaskEvaluation, TaskSide, compare_tasks
from dualtune_edge.runtime.evaluate.tasks.text import describe_tasks
from dualtune_edge.runtime.evaluate.text import describe
from dualtune_edge.runtime.options import BundleFolder, Profile, Threads
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit import console, strict_json
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import SpecError

_ALL: Final = 1_000_000  # turns
_AIM: Final = 0.9
_MODEL: Final = "default"
_ADDRESS: Final = re.compile(r"https?://", re.IGNORECASE)


def evaluate(
    bundle: BundleFolder,
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Held-out conversations, as `finetune` reads them, or rows of BFCL."),
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tasks in TOML, or a folder of such files, in place of --data.")
    ] = None,
    mcp: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For tasks: an mcpServers file, in which ${SANDBOX} is filled in."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For tasks: which calls are denied; all others are made.")
    ] = None,
    bfcl_python: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For BFCL's multi-turn rows: a Python that has bfcl-eval.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Another bundle, or the http address of an OpenAI-compatible endpoint."),
    ] = None,
    against_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The endpoint's model; $OPENAI_API_KEY is its key.", show_default=_MODEL),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Take so many turns or tasks, spread evenly over FILE; default: all.")
    ] = _ALL,
    aim: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Suggest a min_probability that leaves calls right so often.", show_default=str(_AIM)
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one page with the pictures.")] = None,
    profile: Profile = None,
    threads: Threads = None,
    as_json: console.AsJson = False,
) -> None:
    """Count how often a bundle is right.

    Every turn of an assistant in FILE is answered from the turns before it, and compared with what stands there: the
    toolset, the tool or that none is needed, and each argument. FILE holds conversations that no adapter has seen. With
    tasks the calls are really made, in a folder that is removed, and what is in it afterwards is checked.

    Example:
        dualtune-edge evaluate my-bundle --data heldout.jsonl --html evaluation.html
        dualtune-edge evaluate my-bundle --tasks tasks.toml --mcp mcp.json

    """
    dialogues = data is not None and is_multi_turn(_first_line(data))
    if bfcl_python and (tasks or not dialogues):
        raise _unfit(
            "--bfcl-python",
            "no rows of several turns",
            "--data with BFCL's multi-turn rows, whose functions it simulates",
            "Leave it out.",
        )
    _refuse_unheard(against, against_model, None if not tasks and not dialogues else aim)
    if html:
        refuse_unwritable(html)
    if tasks:
        wanted_tasks = WantedTasks(
            tasks, _servers(mcp, data), count, read_policy(policy) if policy else Policy(), profile, threads
        )
        _report_done(tasks, partial(do_tasks, wanted=wanted_tasks), (bundle, against), html, as_json=as_json)
        return
    wanted = _Wanted(_data(data, mcp, policy), count, profile, threads, _AIM if aim is None else aim)
    if dialogues:
        python = _simulating(bfcl_python, wanted.data)
        wanted_dialogues = WantedDialogues(wanted.data, python, count, profile, threads)
        do = partial(do_dialogues, wanted=wanted_dialogues)
        _report_done(wanted.data, do, (bundle, against), html, as_json=as_json)
        return
    with Console(stderr=True).status("") as status:
        report = _evaluated(bundle, against, against_model or _MODEL, wanted, status)
    console.result(report, describe(report), as_json=as_json)  # first: a page that fails takes nothing with it
    if html:
        write_page(html, page(report))


def _refuse_unheard(against: str | None, model: str | None, aim: float | None) -> None:
    """Refuse a model without an endpoint, and the `aim` of what says no probabilities."""
    if model is not None and not (against and _ADDRESS.match(against)):
        raise _unfit(
            "--against-model", f"{model}, and no endpoint", "--against with an endpoint's address", "Leave it out."
        )
    if aim is not None:
        raise _unfit("--aim", f"{aim:g}", "conversations: tasks have no probabilities", "Leave it out.")


class _Do(Protocol):
    def __call__(self, bundle: Path, *, on_step: Callable[[str], None], on_note: Callable[[str], None]) -> TaskSide: ...


def _report_done(file: Path, do: _Do, bundles: tuple[Path, str | None], html: Path | None, *, as_json: bool) -> None:
    """What is done, and not only said: tasks, dialogues; by one bundle, or also by what it is compared with."""
    bundle, against = bundles
    if against and _ADDRESS.match(against):
        raise _unfit("--against", against, "a bundle: an endpoint does no tasks", "Name a bundle's folder.")
    if against:
        open_bundle(against)  # one that cannot be opened is known before the first task
    with Console(stderr=True).status("") as status:
        ours = do(bundle, on_step=status.update, on_note=console.warn)
        other = do(Path(against), on_step=status.update, on_note=console.warn) if against else None
    report = TaskEvaluation(tasks=file.name, ours=ours, against=compare_tasks(ours, other) if other else None)
    console.result(report, describe_tasks(report), as_json=as_json)
    if html:
        write_page(html, tasks_page(report))


def _servers(mcp: Path | None, data: Path | None) -> Path:
    """The servers' file, where tasks are asked for."""
    if data:
        raise _unfit("evaluate", "--data and --tasks", "one of them", "Leave one out.")
    if mcp is None:
        raise _unfit("evaluate", "--tasks without --mcp", "a file that names the servers", "Add --mcp FILE.")
    return mcp


def _data(data: Path | None, mcp: Path | None, policy: Path | None) -> Path:
    """The conversations, where no tasks are asked for."""
    if mcp or policy:
        option = "--mcp" if mcp else "--policy"
        raise _unfit("evaluate", f"{option} without --tasks", "tasks, whose calls are made", "Add --tasks FILE.")
    if data is None:
        raise _unfit("evaluate", "no --data and no --tasks", "what is to be done", "Add --data FILE or --tasks FILE.")
    return data


def _simulating(python: Path | None, data: Path) -> Path:
    """The Python that has bfcl-eval, where the data needs it."""
    if python is None:
        raise _unfit(
            str(data),
            "rows of several turns, whose functions are simulated",
            "a Python that has bfcl-eval",
            "Add --bfcl-python FILE.",
        )
    return python


def _unfit(where: str, found: str, expected: str, fix: str) -> SpecError:
    return SpecError(where, found=found, expected=expected, fix=fix)


@dataclass(frozen=True)
class _Wanted:
    data: Path
    count: int
    profile: str | None
    threads: int | None
    aim: float


def _evaluated(bundle: Path, against: str | None, model: str, wanted: _Wanted, status: Status) -> Evaluation:
    """One side, or two. What would end the comparison comes before the first of many answers."""
    if against and _ADDRESS.match(against):
        others, other = _asked(against, model, bundle, wanted, status)  # whose first request may fail
        found, ours = _answered(bundle, wanted, status)
        return Evaluation(data=wanted.data.name, turns=len(found), ours=ours, against=compare(found, others, other))
    if against is None:
        found, ours = _answered(bundle, wanted, status)
        return Evaluation(data=wanted.data.name, turns=len(found), ours=ours, against=None)
    sides = [_cases(wanted, open_bundle(folder).manifest)[0] for folder in (bundle, against)]
    places, other_places = ([case.request.where for case in cases] for cases in sides)
    refuse_others(places, other_places, Path(against).name)
    found, ours = _answered(bundle, wanted, status)
    others, other = _answered(Path(against), wanted, status)
    return Evaluation(data=wanted.data.name, turns=len(found), ours=ours, against=compare(found, others, other))


def _cases(wanted: _Wanted, manifest: Manifest) -> tuple[list[Case], int]:
    """The turns, and the number of rows that are passed over."""
    if not is_bfcl(_first_line(wanted.data)):
        return [Case(request) for request in read_requests(wanted.data, manifest, wanted.count)], 0
    cases, passed_over = read_bfcl(wanted.data, manifest)
    return spread(cases, wanted.count), passed_over


def _warn_of(passed_over: int, wanted: _Wanted) -> None:
    if passed_over:
        console.warn(f"{passed_over} rows of {wanted.data} are passed over: no toolset has their functions")


def _first_line(path: Path) -> Any:
    """As JSON; None where it is none: whoever reads the file says why."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return strict_json.loads(next((line for line in file if line.strip()), ""))
    except (OSError, UnicodeDecodeError, strict_json.JsonError):
        return None


def _answered(folder: Path, wanted: _Wanted, status: Status) -> tuple[list[Answer], Side]:
    with Agent.open(folder, profile=wanted.profile, threads=wanted.threads) as agent:
        manifest, digest = agent.bundle.manifest, agent.bundle.hashes[MANIFEST]
        cases, passed_over = _cases(wanted, manifest)
        _warn_of(passed_over, wanted)
        found = answers(agent, cases, lambda number: status.update(f"{folder.name}: turn {number} of {len(cases)}"))
    toolsets = len(manifest.toolsets)
    return found, side(folder.name, found, toolsets=toolsets, aim=wanted.aim, manifest_sha256=digest)


def _asked(url: str, model: str, bundle: Path, wanted: _Wanted, status: Status) -> tuple[list[Answer], Side]:
    """The endpoint's answers, with the tools of the bundle."""
    manifest = open_bundle(bundle).manifest
    cases, _ = _cases(wanted, manifest)  # of which the other side warns
    endpoint = Endpoint(http_post(url, os.environ.get("OPENAI_API_KEY")), model, manifest)
    found = answers(endpoint, cases, lambda number: status.update(f"{model}: turn {number} of {len(cases)}"))
    # It sees all tools at once: there is no toolset to choose, and no probability to calibrate.
    return found, side(model, found, toolsets=1, aim=wanted.aim, calibrated=False)
