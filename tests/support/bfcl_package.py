"""A package of bfcl-eval's shape, with two systems, `git` and `files`: BFCL's own does not install beside this one."""

from __future__ import annotations

from pathlib import Path

_BACKENDS = """
CLASS_FILE_PATH_MAPPING = {"git": "bfcl_eval.systems", "files": "bfcl_eval.systems"}
STATELESS_CLASSES = ["files"]
"""
_SYSTEMS = """
import os

class git:
    def __init__(self):
        self.commits = []
        self._asked = 0

    def _load_scenario(self, scenario, long_context=False):
        self.commits = scenario.get("commits", [])  # the scenario's own, as some of BFCL's systems keep it
        if long_context:
            self.commits = self.commits * 2

    def log(self, count):
        print("what a system prints is no answer")
        self._asked += 1
        if count == 13:
            os._exit(3)
        while count == 14:
            pass
        if count < 0:
            raise ValueError("a count below zero")
        return {"commits": self.commits[:count]} if count else {"error": "none"}

    def commit(self, message, author="Ada"):
        self.commits.append(f"{message} by {author}")
        return "committed"


class files:
    def roots(self):
        return ["/"]
"""
# Its two checks, as BFCL has them.
_CHECKER = """
def state_checker(ours, right):
    for name, instance in right.items():
        for attribute, value in vars(instance).items():
            if not attribute.startswith("_") and getattr(ours[name], attribute) != value:
                return {"valid": False, "error_message": f"Model instance for {name} does not match"}
    return {"valid": True}


def response_checker(results, expected, turn):
    left = list(results)
    for item in expected:
        if item not in left:
            return {"valid": False, "error_message": f"a result is missing in turn {turn}"}
        left.remove(item)
    return {"valid": True}
"""


def write_package(folder: Path) -> None:
    """Write it below a folder that PYTHONPATH names."""
    modules = {
        "__init__": "",
        "constants/__init__": "",
        "constants/executable_backend_config": _BACKENDS,
        "systems": _SYSTEMS,
        "eval_checker/__init__": "",
        "eval_checker/multi_turn_eval/__init__": "",
        "eval_checker/multi_turn_eval/multi_turn_checker": _CHECKER,
    }
    for name, text in modules.items():
        path = folder / "bfcl_eval" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
