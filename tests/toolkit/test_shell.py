"""How a command ends by a signal, and what a shell's completion is given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = '''
import signal, tempfile, threading
from pathlib import Path

def slow() -> None:
    """Wait."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        print(folder, flush=True)
        while True:
            signal.pause()

def lingering() -> None:
    """Wait, and leave a thread behind."""
    threading.Thread(target=threading.Event().wait).start()
    slow()

def loud(flag: bool = False) -> None:
    """Print."""
    print("ran")
'''
MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where these tests run in the background
from dualtune_edge.toolkit.shell import Row, run
run({name: Row("slow_commands", name, "Wait.") for name in ("slow", "lingering", "loud")})
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "slow_commands.py").write_text(SLOW, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, encoding="utf-8")


@posix
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_it_with_a_word_and_nothing_is_left(
    number: int, code: int, word: str, environment: dict[str, str]
) -> None:
    with start(environment, "slow") as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.send_signal(number)
        _, said = process.communicate()
    assert (process.returncode, said) == (code, f"dualtune-edge: {word}\n")
    assert not folder.exists()


@posix
def test_a_second_ctrl_c_does_not_wait_for_threads(environment: dict[str, str]) -> None:
    with start(environment, "lingering") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "dualtune-edge: interrupted\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (-signal.SIGINT, "")


@pytest.mark.parametrize(("line", "expected"), [("dualtune-edge lo", "loud"), ("dualtune-edge loud --f", "--flag")])
def test_a_shell_completes_commands_and_flags(line: str, expected: str, environment: dict[str, str]) -> None:
    environment |= {
        "_DUALTUNE_EDGE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    with start(environment) as process:
        out, said = process.communicate()
    assert (out.split(), said) == ([expected], "")


def test_the_short_flag_is_help_everywhere(environment: dict[str, str]) -> None:
    for words in ((), ("loud",)):
        texts = []
        for flag in ("-h", "--help"):
            with start(environment, *words, flag) as process:
                texts.append(process.communicate())
            assert process.returncode == 0
        assert texts[0] == texts[1]
        assert "-h, --help" in texts[0][0]
