"""What the two real servers answer, in short, so that adapters know results when they see them."""

import json
from random import Random
from typing import Any

from dualtune_edge.toolkit.prompts.messages import FunctionCall
from dualtune_edge_kit.training.data import values as plain
from dualtune_edge_kit.training.data.typed import values
from dualtune_edge_kit.training.data.values import TRAIN


def result(rng: Random, call: FunctionCall, shown: list[str]) -> str:
    """The text of the call's result; it holds all of ``shown``, which the next call needs."""
    if call.name == "search_files" and not shown:
        return rng.choice(("No matches found", "\n".join(plain.file(rng, TRAIN) for _ in range(rng.randint(1, 3)))))
    if call.name == "git_log":
        return _log(rng, shown)
    return "\n".join(shown) if shown else _plain(rng, call.name, call.arguments)


def _plain(rng: Random, tool: str, given: dict[str, Any]) -> str:
    path = str(given.get("path", ""))
    name, word, other = plain.filename(rng, TRAIN), plain.noun(rng, TRAIN), plain.noun(rng, TRAIN)
    changed = f"--- a/{name}\n+++ b/{name}\n+{word}"
    state = rng.choice(("nothing to commit, working tree clean", f"Changes not staged for commit:\n\tmodified: {name}"))
    said = {
        "write_file": f"Successfully wrote to {path}",
        "create_directory": f"Successfully created directory {path}",
        "move_file": f"Successfully moved {given.get('source')} to {given.get('destination')}",
        "edit_file": f"```diff\nIndex: {path}\n@@ -1,1 +1,1 @@\n-{word}\n+{other}\n```",
        "list_directory": f"[FILE] {name}\n[DIR] {word}",
        "list_directory_with_sizes": f"[FILE] {name}    1.2 KB\n\nTotal: 1 files, 0 directories\nCombined size: 1.2 KB",
        "directory_tree": json.dumps([{"name": name, "type": "file"}]),
        "get_file_info": f"size: {rng.randint(0, 9999)}\nisDirectory: false\nisFile: true\npermissions: 644",
        "list_allowed_directories": f"Allowed directories:\n{plain.folder(rng, TRAIN)}",
        "git_status": f"Repository status:\nOn branch {values.branch(rng)}\n{state}",
        "git_diff_unstaged": f"Unstaged changes:\n{changed}",
        "git_diff_staged": f"Staged changes:\n{changed}",
        "git_diff": f"Diff with {given.get('target')}:\n{changed}",
        "git_commit": f"Changes committed successfully with hash {values.commit_hash(rng)}",
        "git_add": "Files staged successfully",
        "git_reset": "All staged changes reset",
        "git_create_branch": f"Created branch '{given.get('branch_name')}' from 'main'",
        "git_checkout": f"Switched to branch '{given.get('branch_name')}'",
        "git_branch": f"* main\n  {values.branch(rng)}",
        "git_show": f"Commit: '{values.commit_hash(rng)}'\nAuthor: {word}\n--- {name}",
    }
    text = values.sentence(rng)
    return said.get(tool, text) if rng.random() < 0.75 else rng.choice(("ok", "", text))


def _log(rng: Random, shown: list[str]) -> str:
    hashes = shown or [values.commit_hash(rng) for _ in range(rng.choice((1, 1, 2)))]
    commits = (f"Commit: '{one}'\nAuthor: dev\nMessage: '{values.message(rng)}'\n" for one in hashes)
    return "Commit history:\n" + "\n".join(commits)
