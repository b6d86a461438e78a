"""File systems whose times of change can be believed: only there is a file known again by its times.

A read-only image has the times that its builder wrote into it, so two images can agree in all of them; a file system
over another one, or over a network, passes on what that one says. On Linux the kinds are listed by name; elsewhere a
file system that can be written to is trusted.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
# Linux sets the time of change itself, whatever a program asks for.
_KINDS: Final = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "tmpfs", "xfs", "zfs"})
_IN_A_FILE: Final = "/dev/loop"  # a file's bytes as a device: another file takes its place under the same name
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")  # of a space or line end in a path


def name_of(folder: Path) -> str | None:
    """A name for the file system of a folder, as it is mounted now; None: its times are not to be trusted."""
    if sys.platform == "win32":
        return "windows"  # it mounts no images of this kind
    try:
        status, device = os.statvfs(folder), folder.stat().st_dev
    except (OSError, ValueError):
        return None
    if status.f_flag & os.ST_RDONLY:
        return None
    mount = _mount(folder) if sys.platform == "linux" else "mounted"
    return f"{mount} {device} {status.f_fsid}" if mount else None


def _mount(folder: Path) -> str | None:
    """Kind and source of what is mounted where the folder lies; None: not to be trusted."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        path = folder.resolve(strict=True)
    except (OSError, RuntimeError):  # no /proc, or a loop of links
        return None
    return mount_of(path, lines)


def mount_of(path: Path, lines: list[str]) -> str | None:
    """Kind and source of the mount that a path lies in.

    Args:
        path: absolute, without links.
        lines: of /proc/self/mountinfo; of two mounts at one place the later one covers the other.

    """
    at, kind, source = Path(), "", ""
    for line in lines:
        before, separator, behind = line.partition(" - ")
        fields, what = before.split(" "), behind.split(" ")
        if not separator or len(fields) < 5 or len(what) < 2:
            continue
        place = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(place) and len(place.parts) >= len(at.parts):
            at, kind, source = place, what[0], what[1]
    return f"{kind} {source}" if kind in _KINDS and not source.startswith(_IN_A_FILE) else None
