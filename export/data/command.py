"""`dualtune-edge data check | split | import | generate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dualtune_edge.export.data import split as splitting
from dualtune_edge.export.data.check import DataCheck, ToolCoverage
from dualtune_edge.export.data.check import check as check_lines
from dualtune_edge.export.data.imports import import_file, text_of
from dualtune_edge.export.data.lines import named_files, read_lines, read_toolsets
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.console import printable, table_lines
from dualtune_edge.toolkit.errors import DataError, SpecError
from dualtune_edge.toolkit.files import refuse_existing, replace_file, unwritable
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.trajectories import passed_over
from dualtune_edge.toolkit.shell import group
from dualtune_edge.toolkit.validation import validate

if TYPE_CHECKING:
    from dualtune_edge.export.data.generation import Generated

_SHOWN: Final = 20  # of faults, duplicates and leaks
Data = Annotated[Path, typer.Argument(metavar="FILE", help="Conversations, one a line, as `finetune` reads them.")]


def check(
    data: Data,
    *,
    tools: Annotated[
        list[str], typer.Option(metavar="[NAME=]FILE", help="The tool list; with several toolsets one for each, named.")
    ],
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another part: requests that stand in both are leaks.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Check conversations against the tools.

    All faults are named: lines that cannot be read, calls of unknown tools, arguments that a schema refuses. Then how
    often each tool and each of its arguments occurs. With faults or leaks the exit code is that of a data error.

    Example:
        dualtune-edge data check train.jsonl --tools git.json --against heldout.jsonl

    """
    toolsets = read_toolsets(named_files(tools))
    report = check_lines(read_lines(data), toolsets, read_lines(against) if against else ())
    console.result(report, "\n".join(_lines(report, against)), as_json=as_json)
    if report.faults or report.leaks:
        raise typer.Exit(DataError.exit_code)


def split(
    data: Data,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the parts; nothing may be there yet.")],
    shares: Annotated[
        str,
        typer.Option(metavar="T,V,H", help="Shares of training, validation and held-out lines; 0: no such part."),
    ] = ",".join(map(str, splitting.SHARES)),
    seed: Annotated[int, typer.Option(help="Draw other parts.")] = 0,
    as_json: console.AsJson = False,
) -> None:
    """Split conversations into train.jsonl, validation.jsonl and heldout.jsonl.

    Lines whose user begins with the same request stay together. The parts follow from the seed and the requests.

    Example:
        dualtune-edge data split all.jsonl -o data

    """
    parts = splitting.split(read_lines(data), _shares(shares), seed)
    report = splitting.write_parts(parts, output)
    rows = ((part.file, str(part.lines), str(part.requests)) for part in report.parts)
    text = "\n".join(table_lines(("part", "lines", "requests"), rows, left={"part"}))
    console.result(report, text, as_json=as_json)


def import_(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="Training data: JSON lines, or one JSON list.")],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file of conversations; nothing may be there yet.")
    ],
    toolset: Annotated[str | None, typer.Option(metavar="NAME", help="The toolset of all of them.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Make conversations of other people's training data.

    Read are OpenAI's, TRL's and AgentFlux's messages, TRL's prompt and completion, xLAM's queries, Hermes'
    conversations, and BFCL's rows with their answers beside them. The first row tells the form; a row of another one
    is refused, and then nothing is written.

    Example:
        dualtune-edge data import xlam.json -o all.jsonl --toolset apis

    """
    refuse_existing(output)
    form, trajectories = import_file(data, toolset)
    for note in passed_over(trajectory.unread for trajectory in trajectories):
        console.warn(note)
    try:
        replace_file(output, text_of(trajectories).encode())
    except OSError as error:
        raise unwritable(output, error) from None
    calls = sum(bool(message.tool_calls) for trajectory in trajectories for message in trajectory.messages)
    report = Imported(file=str(output), form=form, lines=len(trajectories), calls=calls)
    console.result(report, f"{report.lines} conversations with {calls} calls, read as {form}", as_json=as_json)


def generate(
    *,
    mcp: Annotated[
        Path, typer.Option(metavar="FILE", help="The servers: an mcpServers file, in which ${SANDBOX} is filled in.")
    ],
    teacher: Annotated[str, typer.Option(metavar="URL", help="An OpenAI-compatible API; $OPENAI_API_KEY is its key.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="The teacher's model.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the data; nothing may be there yet.")],
    files: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Files that a conversation begins with; of several, one is drawn."),
    ] = None,
    files_of: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of such folders, each as if named by --files.")
    ] = None,
    sandbox: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where servers work; default: OUTPUT.sandbox. It is emptied.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Which calls may be made: a TOML file.")] = None,
    per_tool: Annotated[int, typer.Option(min=1, help="Conversations for each tool.")] = 50,
    max_calls: Annotated[int, typer.Option(min=1, help="The most calls in a conversation.")] = 8,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Default: the teacher's own.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draw other styles and requests.")] = 0,
    seeded: Annotated[bool, typer.Option("--seeded/--unseeded", help="Send the teacher a seed, too.")] = True,
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="Of a million tokens of prompts and of completions.")
    ] = None,
    limit_cost: Annotated[float | None, typer.Option(help="End the run at this cost, with what is there.")] = None,
    limit_tokens: Annotated[int | None, typer.Option(help="End the run after so many tokens.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Make conversations for the tools of MCP servers, by a teacher.

    The teacher writes requests and does them; its calls are checked, and really run in the sandbox. What is made is
    kept: the same command goes on after an interruption. The folder holds conversations.jsonl and tools/SERVER.json.

    Example:
        dualtune-edge data generate --mcp mcp.json --teacher http://localhost:8000/v1 --model qwen3-32b -o data

    """
    from dualtune_edge.export.data.generate import generate as run
    from dualtune_edge.export.data.generation import GenerationSettings
    from dualtune_edge.export.data.generation_progress import shown
    from dualtune_edge.export.data.teacher import EndpointTeacher
    from dualtune_edge.runtime.agent.approval import read_policy
    from dualtune_edge.runtime.agent.config import read_config
    from dualtune_edge.runtime.agent.sandbox import folders_in

    values = {
        "output": output,
        "url": teacher,
        "model": model,
        "sandbox": sandbox or output.with_name(f"{output.name}.sandbox"),
        "files": (*(files or ()), *(folders_in(files_of) if files_of else ())),
        "policy": read_policy(policy) if policy else None,
        "per_tool": per_tool,
        "most_calls": max_calls,
        "temperature": temperature,
        "seed": seed,
        "seeded": seeded,
        "prices": _prices(price),
        "limit_cost": limit_cost,
        "limit_tokens": limit_tokens,
    }
    settings = validate(GenerationSettings, values, where="data generate", error=SpecError)
    asked = EndpointTeacher(teacher, model, temperature=temperature, seeded=seeded)
    with shown() as on_progress:
        report = run(settings, lambda variables: read_config(mcp, variables), asked, on_progress)
    for warning in report.warnings:
        console.warn(warning)
    console.result(report, "\n".join(_generated(report)), as_json=as_json)


class Imported(Frozen):
    """What `data import --json` prints."""

    file: str
    form: str
    lines: int
    calls: int


def _shares(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if len(numbers) != len(splitting.PARTS) or len(parts) != len(numbers) or not any(numbers):
        raise SpecError(
            "--shares", found=text, expected="three whole numbers, not all 0", fix="Write them as 80,10,10."
        )
    return numbers


def _lines(report: DataCheck, against: Path | None) -> Iterator[str]:
    yield f"{report.lines} lines, {report.turns} turns of the assistant, {report.calls} of them calls"
    yield from _listed("faults", [f"{fault.where}: {fault.found}" for fault in report.faults])
    yield from _listed("duplicates", [f"{pair.where}: as {pair.other}" for pair in report.duplicates])
    if against:
        yield from _listed("leaks", [f"{pair.where}: the request of {pair.other}" for pair in report.leaks])
    yield ""
    columns = ("tool", "calls", "argument", "given", "values")
    yield from table_lines(columns, (row for tool in report.tools for row in _rows(tool)), left={"tool", "argument"})


def _listed(name: str, texts: list[str]) -> Iterator[str]:
    if not texts:
        yield f"no {name}"
        return
    yield f"{len(texts)} {name}:"
    yield from (f"  {printable(text)}" for text in texts[:_SHOWN])
    if len(texts) > _SHOWN:
        yield f"  … and {len(texts) - _SHOWN} more (--json has all)"


def _rows(tool: ToolCoverage) -> Iterator[tuple[str, ...]]:
    name = f"{tool.toolset}.{tool.tool}" if tool.toolset else tool.tool
    if not tool.properties:
        yield name, str(tool.calls), "", "", ""
    for number, entry in enumerate(tool.properties):
        argument = entry.name if entry.required else f"{entry.name} (optional)"
        head = (name, str(tool.calls)) if number == 0 else ("", "")
        yield *head, argument, str(entry.given), str(entry.values)


def _prices(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        prompt, completion = map(float, text.split(","))
    except ValueError:
        raise SpecError("--price", found=text, expected="two numbers", fix="Write them as 0.15,0.6.") from None
    return {"prompt": prompt, "completion": completion}


def _generated(report: Generated) -> Iterator[str]:
    ended = {"complete": "", "limit": ": the limit is reached", "exhausted": ": no more could be used"}[report.ended]
    yield f"{report.folder}: {report.conversations} of {report.wanted} conversations{ended}"
    usage = report.usage
    cost = "" if report.cost is None else f", cost {report.cost:.2f}"
    yield (
        f"{usage.requests} requests to {report.model}, {usage.prompt_tokens:,} tokens of prompts, "
        f"{usage.completion_tokens:,} of completions{cost}"
    )
    yield from (f"{reason.conversations} left out: {printable(reason.why)}" for reason in report.left_out)
    if report.repeated:
        yield f"{report.repeated} requests passed over: they were there already"
    yield ""
    rows = ((f"{tool.toolset}.{tool.tool}", str(tool.conversations), str(tool.calls)) for tool in report.tools)
    yield from table_lines(("tool", "conversations for it", "calls"), rows, left={"tool"})


data = group("Check, split, import and generate conversations to train with.", (check, split, import_, generate))
