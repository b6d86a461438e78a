"""What a bundle answers to the first message of conversations, and how the answers of two machines differ.

Usage: python .ci/answers.py ask BUNDLE COUNT FILE... > answers.jsonl
       python .ci/answers.py compare ONE.jsonl OTHER.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

_KEPT: Final = ("toolset", "tool", "arguments", "probability", "toolset_probability", "alternatives")
_TIE: Final = 0.02  # probability: two choices this near to each other may fall either way


def ask(bundle: Path, count: int, files: list[Path]) -> None:
    """Print an answer a line, of at most `count` requests of each file, spread over it."""
    from dualtune_edge.profiles.schema import SessionSettings  # noqa: PLC0415 - `compare` needs none of it
    from dualtune_edge.runtime import Agent  # noqa: PLC0415
    from dualtune_edge.toolkit.errors import RequestError  # noqa: PLC0415
    from dualtune_edge.toolkit.prompts.trajectories import read_trajectories  # noqa: PLC0415

    with Agent.open(bundle, settings=SessionSettings(intra_op_threads=1, spinning=False)) as agent:
        for file in files:
            trajectories = read_trajectories(file)
            taken = min(count, len(trajectories))
            for index in range(taken):
                request = trajectories[index * len(trajectories) // taken].messages[0]
                try:
                    result = agent.call([request]).model_dump(mode="json")
                except RequestError as error:  # arguments without an end are an answer too
                    result = {**dict.fromkeys(_KEPT), "toolset": "", "tool": error.where}
                line = {"request": request.content, **{name: result[name] for name in _KEPT}}
                sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


def compare(one: Path, other: Path) -> int:
    """Print what differs, and how many are the same. 1: some differ, and were no tie."""
    pairs = list(zip(_read(one), _read(other), strict=True))
    faults = 0
    for left, right in pairs:
        if _call(left) == _call(right):
            continue
        tie = _tie(left, right)
        faults += not tie
        sys.stdout.write(f"{'a tie' if tie else 'differs'}: {left['request']}\n  {_call(left)}\n  {_call(right)}\n")
    same = sum(_call(left) == _call(right) for left, right in pairs)
    sys.stdout.write(f"{same} of {len(pairs)} answers are the same, {faults} differ without a tie\n")
    return 1 if faults or not pairs else 0


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _call(answer: dict[str, Any]) -> str:
    return json.dumps([answer["toolset"], answer["tool"], answer["arguments"]], sort_keys=True, ensure_ascii=False)


def _tie(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Whether the toolset, or the tool, was one of two that are equally likely on both machines."""
    if None in (left["probability"], right["probability"]):
        return False
    if left["toolset"] != right["toolset"]:
        return all(abs(answer["toolset_probability"] - 0.5) < _TIE for answer in (left, right))
    if left["tool"] == right["tool"]:
        return False
    return all(
        abs(
            answer["probability"]
            - max((alternative["probability"] for alternative in answer["alternatives"]), default=0)
        )
        < _TIE
        for answer in (left, right)
    )


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "compare":
        sys.exit(compare(Path(given[0]), Path(given[1])))
    ask(Path(given[0]), int(given[1]), [Path(name) for name in given[2:]])
