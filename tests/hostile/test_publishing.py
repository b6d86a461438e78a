"""Many processes want one name: one has it, whole, and the others end with an error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PROCESSES = 8
CODE = """
import json, sys
from pathlib import Path
from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.files import published_folder
number, rounds, place = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
outcomes = []
for turn in range(rounds):
    try:
        with published_folder(place / str(turn)) as workspace:
            for name in range(5):
                (workspace / str(name)).write_text(str(number) * 1000)
        outcomes.append("won")
    except OutputError:
        outcomes.append("refused")
print(json.dumps(outcomes))
"""


def test_one_winner_each_round(tmp_path: Path, share: Callable[[int], int], figure: Callable[[str, str], None]) -> None:
    rounds = share(100)
    command = [sys.executable, "-c", CODE]
    running = [
        subprocess.Popen([*command, str(number), str(rounds), str(tmp_path)], stdout=subprocess.PIPE)
        for number in range(PROCESSES)
    ]
    outcomes = [json.loads(process.communicate()[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    for turn in range(rounds):
        assert [row[turn] for row in outcomes].count("won") == 1
        texts = {path.read_text() for path in (tmp_path / str(turn)).iterdir()}
        assert len(texts) == 1  # of one process
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(rounds))  # and nothing is left over
    figure(
        "Concurrent exports are safe",
        f"{PROCESSES} processes × {rounds} rounds: one winner each, the others end with an error",
    )
