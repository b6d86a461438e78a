"""BFCL's simulated systems behind JSON lines: a script for a Python that has bfcl-eval, which this one has not.

It imports nothing of this package. A line in is one request, a line out its answer:

- `{"begin": [classes], "config": {...}, "long_context": bool}` → `{"functions": {class: [names]}}`
- `{"call": name, "arguments": {...}}` → `{"text": result, "error": bool}`
- `{"check": [[name, values, arguments], ...]}` →
  `{"valid": bool, "message": text, "calls": [[class, name, arguments], ...]}`

The check makes the right calls on systems of their own, and compares by BFCL's checker. Nothing is evaluated as Python.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import os
import sys
from typing import Any

_CHECKER = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker"
_BACKENDS = "bfcl_eval.constants.executable_backend_config"


class Systems:
    """The systems of a row, as one side changes them."""

    def __init__(self, classes: list[str], config: dict[str, Any], *, long_context: bool) -> None:
        """Make each and load what it begins with."""
        backends = importlib.import_module(_BACKENDS)
        self.instances: dict[str, Any] = {}
        self.functions: dict[str, tuple[str, Any]] = {}  # name → (class, bound method)
        for name in classes:
            instance = getattr(importlib.import_module(backends.CLASS_FILE_PATH_MAPPING[name]), name)()
            if name not in backends.STATELESS_CLASSES:
                begun = copy.deepcopy(config.get(name, {}))
                instance._load_scenario(begun, long_context=long_context)  # noqa: SLF001 - BFCL's executor calls it
            self.instances[name] = instance
            for function, method in inspect.getmembers(instance, predicate=inspect.ismethod):
                if not function.startswith("_"):
                    self.functions[function] = (name, method)

    def call(self, name: str, values: list[Any], arguments: dict[str, Any]) -> tuple[str, bool]:
        """The result as BFCL writes it into the conversation, and whether it is an error."""
        try:
            result = self.functions[name][1](*values, **arguments)
        except Exception as error:  # noqa: BLE001 - whatever a system raises is its answer
            return f"Error during execution: {error}", True
        if isinstance(result, str):
            return result, False
        if not isinstance(result, dict):
            return str(result), False
        try:
            return json.dumps(result), "error" in result
        except (TypeError, ValueError):
            return str(result), "error" in result


class Session:
    """A row: the bundle's systems, those of the right calls, and the bundle's results so far."""

    def __init__(self, classes: list[str], config: dict[str, Any], *, long_context: bool) -> None:
        """Both sides begin alike."""
        self.ours = Systems(classes, config, long_context=long_context)
        self.right = Systems(classes, config, long_context=long_context)
        self.results: list[str] = []
        self.calls = 0  # since the last check
        self.turn = 0

    def functions(self) -> dict[str, list[str]]:
        """The names that each class answers to."""
        return {
            system: [name for name, (owner, _) in self.ours.functions.items() if owner == system]
            for system in self.ours.instances
        }

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """A call of the bundle's."""
        text, error = self.ours.call(name, [], arguments)
        self.results.append(text)
        self.calls += 1
        return {"text": text, "error": error}

    def check(self, right: list[Any]) -> dict[str, Any]:
        """The verdict on a turn, as `multi_turn_checker` comes to it."""
        checker = importlib.import_module(_CHECKER)
        bound, expected = [], []
        for name, values, arguments in right:
            owner, method = self.right.functions[name]
            bound.append([owner, name, inspect.signature(method).bind(*values, **arguments).arguments])
            expected.append(self.right.call(name, values, arguments)[0])
        calls, turn, self.calls, self.turn = self.calls, self.turn, 0, self.turn + 1
        if not right:  # nothing is compared where nothing can be done
            return {"valid": True, "message": "", "calls": []}
        if not calls:
            return {"valid": False, "message": "no call", "calls": bound}
        verdict = checker.state_checker(self.ours.instances, self.right.instances)
        if verdict["valid"]:
            verdict = checker.response_checker(self.results, expected, turn)
        return {"valid": verdict["valid"], "message": verdict.get("error_message", ""), "calls": bound}


def main() -> None:
    """Answer until the input ends."""
    # The script's own folder is no place to import from.
    sys.path[:] = [folder for folder in sys.path if folder != os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
    answers, sys.stdout = sys.stdout, sys.stderr  # what a system prints is no answer
    session: Session | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "begin" in request:
            session = Session(request["begin"], request["config"], long_context=request["long_context"])
            answer: dict[str, Any] = {"functions": session.functions()}
        elif "call" in request:
            assert session  # noqa: S101 - `begin` came before
            answer = session.call(request["call"], request["arguments"])
        else:
            assert session  # noqa: S101
            answer = session.check(request["check"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
