"""BFCL's simulated systems, run by another Python: a toolbox for the agent, and the verdict on each turn."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.toolbox import Cancellation
from dualtune_edge.runtime.evaluate.multi_turn.rows import Dialogue, Turn
from dualtune_edge.runtime.evaluate.tasks.task import GoldCall
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import EngineError, ToolsError
from dualtune_edge.toolkit.frozen import Frozen

_SCRIPT: Final = Path(__file__).with_name("simulator.py")
_SECONDS: Final = 60.0  # of one answer
_SAID: Final = 300  # characters of what the process said on stderr


class Verdict(Frozen):
    """Whether a turn is right, why not, and the right calls with their arguments by name."""

    valid: bool
    message: str
    calls: tuple[GoldCall, ...]


class Simulation:
    """The systems of one dialogue, in a process that ends with it."""

    def __init__(self, python: Path, dialogue: Dialogue) -> None:
        """`python` has bfcl-eval."""
        self._python, self._dialogue = python, dialogue
        self._missing: frozenset[str] = frozenset()
        self._functions: Mapping[str, frozenset[str]] = {}

    def __enter__(self) -> Self:
        """Start the systems.

        Raises:
            EngineError: there is no such Python, or it has no bfcl-eval.

        """
        self._said = tempfile.TemporaryFile()
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own Python, by option
                [self._python, _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        except OSError as error:
            self._said.close()
            raise self._broken(str(error)) from None
        try:
            row = self._dialogue
            begun = self._ask({"begin": row.systems, "config": row.config, "long_context": row.long_context})
        except BaseException:
            self._close()
            raise
        self._functions = {name: frozenset(functions) for name, functions in begun["functions"].items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._close()

    def offer(self, manifest: Manifest, *, cancel: Cancellation | None = None) -> Offer:  # noqa: ARG002 - it is known
        """The tools of the dialogue's systems, without those that are missing yet.

        Raises:
            ToolsError: a toolset has a tool that the system of its name has not.

        """
        known = {entry.toolset.name: entry.toolset.tools for entry in manifest.toolsets}
        tools = {}
        for system, functions in self._functions.items():
            names = frozenset(tool.name for tool in known[system])
            if strange := sorted(names - functions):
                raise ToolsError(
                    f"toolset {system}",
                    found=f"the tool {strange[0]}, which BFCL's {system} has not",
                    expected="tools of multi_turn_func_doc",
                    fix="Export the bundle with these.",
                )
            if names - self._missing:
                tools[system] = names - self._missing
        return Offer(tools, frozenset(), ())

    def call(
        self,
        server: str,  # noqa: ARG002 - names are unique
        tool: str,
        arguments: dict[str, Any],
        *,
        cancel: Cancellation | None = None,  # noqa: ARG002 - a call takes no time
    ) -> ToolOutcome:
        """Change the systems.

        Raises:
            EngineError: the process ended, or did not answer in time.

        """
        answer = self._ask({"call": tool, "arguments": arguments})
        return ToolOutcome(answer["text"], error=answer["error"])

    def begin(self, turn: Turn) -> None:
        """Offer what this turn has."""
        self._missing = turn.missing

    def check(self, turn: Turn) -> Verdict:
        """Make the right calls of a turn on systems of their own, and compare.

        Raises:
            EngineError: the process ended, or did not answer in time.

        """
        answer = self._ask({"check": [[call.name, call.values, call.arguments] for call in turn.right]})
        calls = [GoldCall(call=f"{system}.{name}", arguments=values) for system, name, values in answer["calls"]]
        return Verdict(valid=answer["valid"], message=answer["message"], calls=tuple(calls))

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin  # noqa: S101 - both are pipes
        assert self._process.stdout  # noqa: S101
        timer = threading.Timer(_SECONDS, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:  # it ended
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise self._broken(self._end())
        return json.loads(line)

    def _end(self) -> str:
        """How the process ended, with the last line that it said."""
        code = self._process.wait()
        if code == -9:  # killed
            return f"no answer within {_SECONDS:g} s, or too little memory"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        return f"an end with code {code}: {words[-1][:_SAID] if words else 'nothing said'}"

    def _broken(self, found: str) -> EngineError:
        return EngineError(
            f"BFCL's simulated functions, by {self._python}",
            found=found,
            expected="a Python 3.10 or later that has bfcl-eval and mpmath",
            fix="Install these into an environment, and give its python as --bfcl-python.",
        )

    def _close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()
