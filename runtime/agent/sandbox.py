"""The folder that servers work in while data is made or a bundle is measured: it holds nothing that anybody needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dualtune_edge.runtime.agent.config import ServerConfig
from dualtune_edge.runtime.decode.sources import texts_in
from dualtune_edge.toolkit.errors import OutputError, SpecError
from dualtune_edge.toolkit.files import unwritable

VARIABLE: Final = "SANDBOX"  # of the environment that a servers' file is filled in from
_LISTED: Final = 100  # files


class Sandbox:
    """A folder of this run alone: filled before each conversation, removed at the end.

    Args:
        path: where it is; the paths in the conversations begin with it.
        starts: folders to fill it from; none: it begins empty.

    """

    def __init__(self, path: Path, starts: tuple[Path, ...] = ()) -> None:
        self.path, self._starts = path.absolute(), starts
        for start in starts:
            if not start.is_dir():
                raise SpecError(str(start), found="no folder", expected="files to begin with", fix="Check --files.")
            if self.path.is_relative_to(start.resolve()):
                raise SpecError(
                    str(start), found="the sandbox in it", expected="another place", fix="Choose another --sandbox."
                )

    def refuse_foreign(self) -> None:
        """Raise `OutputError` if something is there that no run of this command has made."""
        if self.path.is_symlink() or (self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))):
            raise OutputError(
                str(self.path),
                found="something in it",
                expected="an empty or absent folder: its files are removed before each conversation",
                fix="Name another --sandbox.",
            )

    def fill(self, number: int) -> None:
        """Begin with the files of the start of this number.

        Raises:
            OutputError, RoomError: it cannot be written.

        """
        try:
            self.remove()
            if self._starts:
                shutil.copytree(self._starts[number % len(self._starts)], self.path, symlinks=True)
            else:
                self.path.mkdir(parents=True)
        except (OSError, shutil.Error) as error:
            raise unwritable(self.path, error if isinstance(error, OSError) else OSError(str(error))) from None

    def remove(self) -> None:
        """Remove it with all that is in it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    def environment(self) -> Mapping[str, str]:
        """The process's environment, and the sandbox's path by its name there."""
        return {**os.environ, VARIABLE: str(self.path)}

    def placed(self, configs: Mapping[str, ServerConfig]) -> dict[str, ServerConfig]:
        """The servers, which work in it unless they say where."""
        return {
            name: config.model_copy(update={"cwd": config.cwd or self.path}) if config.command else config
            for name, config in configs.items()
        }

    def listing(self, number: int) -> str:
        """The files that it begins with, a line each."""
        if not self._starts:
            return ""
        start = self._starts[number % len(self._starts)]
        files = sorted(path.relative_to(start).as_posix() for path in start.rglob("*") if path.is_file())
        more = [f"… and {len(files) - _LISTED} more"] if len(files) > _LISTED else []
        return "\n".join((*files[:_LISTED], *more))

    def outside(self, arguments: Mapping[str, Any]) -> str | None:
        """The first text of the arguments that is a path out of the sandbox: absolute, `~`, or up by `..`.

        Variables of the environment count as what they stand for: some servers fill them in.
        """
        return next((text for _, text in texts_in(dict(arguments)) if self._leaves(text)), None)

    def _leaves(self, text: str) -> bool:
        text = os.path.expandvars(text.removeprefix("file://")).replace("\\", "/")
        if text.startswith("~"):
            return True
        if Path(text).is_absolute() or ".." in text.split("/"):
            try:
                resolved = (self.path / text).resolve()
            except (OSError, ValueError):
                return True
            return not resolved.is_relative_to(self.path.resolve())
        return False


def folders_in(folder: Path) -> tuple[Path, ...]:
    """The folders in a folder, by name.

    Raises:
        SpecError: there is none.

    """
    folders = tuple(sorted(path for path in folder.glob("*") if path.is_dir()))
    if not folders:
        raise SpecError(
            str(folder), found="no folder in it", expected="folders of files to begin with", fix="Check --files-of."
        )
    return folders
