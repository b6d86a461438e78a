"""As the sidecar of an app: a Unix socket of this user alone, and an end with the app that started it.

Windows has such sockets, but Python's asyncio does not serve them there, nor does uvicorn serve named pipes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from dualtune_edge.toolkit.errors import OutputError, SpecError
from dualtune_edge.toolkit.files import unwritable

_OWN: Final = 0o177  # umask: read and write for this user alone
_SECONDS: Final = 1.0  # for an answer of whoever listens already
_BACKLOG: Final = 128  # connections that wait while the bundle is opened
_STDIN: Final = 0
_BYTES: Final = 4096  # read from stdin at a time, and dropped


def when_stdin_closes() -> threading.Event:
    """An event that is set once the other end of stdin is closed: by an app that ends, however it ends.

    What arrives until then is dropped.

    Raises:
        SpecError: stdin is closed, or is a file: it would say nothing about whoever started this process.

    """
    try:
        mode = os.fstat(_STDIN).st_mode
    except OSError:
        mode = 0
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (mode and os.isatty(_STDIN))):
        raise SpecError(
            "--until-stdin-closes",
            found="a file as stdin" if mode else "no stdin",
            expected="a pipe that the app holds open",
            fix="Start it with a pipe as its stdin: docs/sidecar.md.",
        )
    closed = threading.Event()

    def watch() -> None:
        try:
            while os.read(_STDIN, _BYTES):
                pass
        except OSError:  # a terminal that is gone
            pass
        closed.set()

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    return closed


if sys.platform == "win32":

    @contextlib.contextmanager
    def listening(path: Path) -> Iterator[socket.socket]:
        """Refuse: there is no such server on this system."""
        raise SpecError(
            "--socket", found="Windows", expected="a system with Unix sockets", fix=f"Leave {path} out: use --port 0."
        )
        yield socket.socket()

else:
    import fcntl

    @contextlib.contextmanager
    def listening(path: Path) -> Iterator[socket.socket]:
        """A socket at `path` that takes connections while the block lasts; then its name is removed.

        A socket there that nobody listens on is replaced: its server was killed.

        Raises:
            OutputError: something else is there, a server listens there, others can replace what is there, or the
                socket cannot be made.

        """
        path = path.absolute()
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as own:
            try:
                with _held(path.parent):
                    _remove_stale(path)
                    _bind(own, path)
                    made = path.lstat()
            except OSError as error:
                raise unwritable(path, error) from None
            try:
                yield own
            finally:
                with contextlib.suppress(OSError):
                    if os.path.samestat(made, path.lstat()):  # not if somebody took its place
                        path.unlink()

    @contextlib.contextmanager
    def _held(folder: Path) -> Iterator[None]:
        """Hold the folder, so that of two servers one finds the other's socket."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            mode = os.fstat(descriptor).st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
                _refuse(folder, f"a folder that others can write to (mode {stat.S_IMODE(mode):o})", "one of this user")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _remove_stale(path: Path) -> None:
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            _refuse(path, "something that is no socket", "a path where nothing is")
        if status.st_uid != os.geteuid():
            _refuse(path, f"a socket of user {status.st_uid}", "one of this user")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_SECONDS)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
                return
            except (BlockingIOError, TimeoutError):  # it listens, and its queue is full
                pass
        _refuse(path, "a server that listens there", "a path where none does")

    def _bind(own: socket.socket, path: Path) -> None:
        before = os.umask(_OWN)  # the mode is right from the first moment
        try:
            own.bind(str(path))
        finally:
            os.umask(before)
        own.listen(_BACKLOG)

    def _refuse(path: Path, found: str, expected: str) -> NoReturn:
        raise OutputError(str(path), found=found, expected=expected, fix="Name another path for the socket.")
