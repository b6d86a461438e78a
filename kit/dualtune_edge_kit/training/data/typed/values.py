# ruff: noqa: S108, SIM905 - paths to talk of; word lists read better as text
"""Values as people type them: Windows paths, home folders, umlauts, spaces, well-known names, loose dates."""

from collections.abc import Callable
from random import Random
from typing import Final

from dualtune_edge_kit.training.data import values as plain
from dualtune_edge_kit.training.data.values import TRAIN

_COMMON: Final = 0.5  # share of values of training's own kinds

_FOREIGN: Final = tuple(
    """büro straße müller größe prüfung übung jürgen zürich köln françois café señal año niño smörgås łódź garçon
    überblick änderung öffnung wäsche frühling schlüssel bücher gemüse käse tür hütte père noël crème élève où déjà
    mañana corazón canción château forêt pâté naïve piñata jalapeño ålesund søren københavn reykjavík žluťoučký kůň
    日本 写真 東京 данные отчёт москва αθήνα""".split()
)
_NAMES: Final = tuple("anna ben carla david eva felix greta hugo ida jan karl lena max nina olga paul rosa tom".split())
_FILES: Final = tuple(
    """README.md README Makefile LICENSE package.json pyproject.toml setup.py main.py app.js index.html style.css
    Dockerfile .gitignore .env .bashrc config.yaml settings.json notes.txt todo.txt todo.md CHANGELOG.md
    requirements.txt server.log error.log data.csv report.pdf letter.docx budget.xlsx draft.md utils.py test.py
    docker-compose.yml tsconfig.json Cargo.toml go.mod id.txt secrets.env backup.zip diary.txt recipe.md""".split()
)
_FOLDERS: Final = tuple(
    """Documents Downloads Desktop Pictures Music Videos src docs tests lib bin build dist config logs backup notes
    projects work code photos archive tmp data assets scripts reports invoices old new drafts public private""".split()
)
_EXTENSIONS: Final = tuple("txt md py js json csv log yaml toml html css sql xml docx pdf xlsx sh c h ipynb".split())
_MEDIA: Final = tuple("png jpg mp3 wav gif svg bmp mp4 m4a tiff PNG JPG".split())
_BRANCHES: Final = tuple(
    """main master develop dev staging production release stable trunk test hotfix feature/login fix/typo
    release/1.2 feature/dark-mode docs/readme origin/main upstream/main gh-pages v2""".split()
)
_DAYS: Final = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
_SAYINGS: Final = (
    "milk, eggs and bread",
    "Hello, world!",
    "call mum on sunday",
    "the meeting is at {n}",
    "TODO: ask {who} about the {x}",
    "password is {x}{n}",
    "Dear {who}, see you on {day}",
    "port={n}",
    "{x} = {n}",
    "buy {n} {x}s",
    "done.",
    "remember the {x}",
    "{who} was here",
    "first draft of the {x}",
    "we need a new {x}",
    "{x},{y},{n}",
    "# {x}",
    "print('{x}')",
    "this is only a test",
    "version {n}.{m}",
    "out of office until {day}",
    "thanks, {who}",
)
_COMMITS: Final = (
    "fix typo",
    "fix the {x}",
    "Fix {x} in {y}",
    "wip",
    "WIP: {x}",
    "initial commit",
    "first version",
    "update readme",
    "Update {x}",
    "add {x}",
    "add {x} and {y}",
    "Add tests for {x}",
    "remove old {x}",
    "feat: {x} {y}",
    "fix: {x} was too {y}",
    "chore: bump {x} to {n}.{m}",
    "docs: describe the {x}",
    "{x}: better {y}",
    "bugfix",
    "cleanup",
    "small changes",
    "closes #{n}",
    "Merge {x} into {y}",
    "more {x}",
    "{x} works now",
    "refactor {x}",
)
_PHRASES: Final = (
    "debug = true",
    "debug = false",
    "port: {n}",
    "port={n}",
    "timeout {n}",
    "version {n}.{m}",
    "{n}.{m}.0",
    "{x}",
    "{x} {y}",
    "http://{x}.com",
    "localhost",
    "{x}()",
    "{who}",
    "{day}",
    "TODO",
    "DONE",
    "{n}",
    "{n} euros",
    "teh {x}",
    "the {x}",
    "{x}_{y}",
    "import {x}",
)


def file(rng: Random) -> str:
    """A path of a text file."""
    if rng.random() < _COMMON:
        return plain.file(rng, TRAIN)
    name = _file_name(rng)
    return name if rng.random() < 0.2 else _joined(rng, [*_parts(rng), name])


def folder(rng: Random) -> str:
    """A path of a folder."""
    if rng.random() < _COMMON:
        return plain.folder(rng, TRAIN)
    if rng.random() < 0.08:
        return rng.choice((".", "~", "..", "/", "C:\\", "/tmp", "/etc", "/home", "D:\\"))
    return _joined(rng, _parts(rng))


def media(rng: Random) -> str:
    """A path of an image or a sound, with a real extension: nothing else tells it from a text's."""
    name = rng.choice((_stem(rng), f"IMG_{rng.randint(1000, 9999)}", f"DSC{rng.randint(100, 9999)}", _stem(rng)))
    name = f"{name}.{rng.choice(_MEDIA)}"
    if rng.random() < _COMMON:
        return f"{plain.folder(rng, TRAIN)}/{name}"
    return name if rng.random() < 0.2 else _joined(rng, [*_parts(rng), name])


def repository(rng: Random) -> str:
    """A repository's folder."""
    if rng.random() < _COMMON:
        return plain.repository(rng, TRAIN)
    return "." if rng.random() < 0.05 else _joined(rng, _parts(rng))


def relative(rng: Random) -> str:
    """A file as git names it."""
    if rng.random() < _COMMON:
        return plain.relative(rng, TRAIN)
    name = _file_name(rng)
    return name if rng.random() < 0.5 else f"{rng.choice(_FOLDERS)}/{name}"


def branch(rng: Random) -> str:
    """A branch's name."""
    if rng.random() < _COMMON:
        return plain.branch(rng, TRAIN)
    style = rng.random()
    if style < 0.5:
        return rng.choice(_BRANCHES)
    if style < 0.75:
        return f"{_word(rng).upper()[:4]}-{rng.randint(1, 999)}-{_word(rng)}"
    return f"{rng.choice(_NAMES)}/{_word(rng)}"


def revision(rng: Random) -> str:
    """A commit, a tag or a name of one."""
    if rng.random() < _COMMON:
        return plain.revision(rng, TRAIN)
    named = ("HEAD", "HEAD^", f"HEAD~{rng.randint(1, 9)}", f"v{rng.randint(0, 9)}.{rng.randint(0, 9)}")
    return rng.choice((*named, plain.sha(rng, TRAIN), plain.sha(rng, TRAIN)))


def message(rng: Random) -> str:
    """A commit message."""
    return plain.message(rng, TRAIN) if rng.random() < _COMMON else _said(rng, _COMMITS)


def sentence(rng: Random) -> str:
    """A line of text for a file."""
    return plain.sentence(rng, TRAIN) if rng.random() < _COMMON else _said(rng, _SAYINGS)


def phrase(rng: Random) -> str:
    """A short piece of a line."""
    return plain.phrase(rng, TRAIN) if rng.random() < _COMMON else _said(rng, _PHRASES)


def glob(rng: Random) -> str:
    """A pattern of files, often only a name."""
    if rng.random() < _COMMON:
        return plain.glob(rng, TRAIN)
    word, ending = _word(rng), rng.choice((*_EXTENSIONS, *_MEDIA))
    return rng.choice((f"*.{ending}", f"*.{ending}", f"{word}.{ending}", f"*{word}*", f"{word}*", _file_name(rng)))


def exclusion(rng: Random) -> str:
    """What a search or a tree leaves out."""
    if rng.random() < _COMMON:
        return plain.exclusion(rng, TRAIN)
    names = ("node_modules", ".git", "__pycache__", "build", "dist", ".venv", "target", "*.log", "*.tmp", "*.pyc")
    return rng.choice((*names, rng.choice(_FOLDERS)))


def date(rng: Random) -> str:
    """A moment as people write it."""
    if rng.random() < _COMMON:
        return plain.date(rng, TRAIN)
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2019, 2027)
    return rng.choice(
        (
            "yesterday",
            "today",
            "last week",
            "last month",
            f"last {rng.choice(_DAYS)}",
            rng.choice(_DAYS),
            f"{rng.randint(2, 9)} days ago",
            f"{rng.randint(2, 9)} weeks ago",
            f"{day}.{month}.{year}",
            f"{year}-{month:02}-{day:02}",
            f"{rng.choice(plain.MONTHS)} {day}",
        )
    )


def commit_hash(rng: Random) -> str:
    """A commit's whole hash, which results have."""
    return "".join(rng.choice("0123456789abcdef") for _ in range(40))


MAKERS: Final[dict[str, Callable[[Random], str]]] = {
    "file": file,
    "folder": folder,
    "media": media,
    "repository": repository,
    "branch": branch,
    "sha": lambda rng: plain.sha(rng, TRAIN),
    "hash": commit_hash,
    "revision": revision,
    "message": message,
    "sentence": sentence,
    "phrase": phrase,
    "glob": glob,
    "date": date,
}


def _word(rng: Random) -> str:
    return plain.noun(rng, TRAIN) if rng.random() < 0.8 else rng.choice(_NAMES)


def _stem(rng: Random) -> str:
    """A name without extension."""
    style = rng.random()
    if style < 0.25:
        return rng.choice(_FOREIGN)
    if style < 0.4:
        return f"{_word(rng)} {_word(rng)}"
    if style < 0.5:
        return f"{_word(rng).capitalize()} {rng.choice(_FOREIGN)}"
    if style < 0.6:
        return f"{_word(rng)}_v{rng.randint(1, 9)}"
    if style < 0.7:
        return f"{rng.randint(2019, 2027)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    return _word(rng)


def _file_name(rng: Random) -> str:
    return rng.choice(_FILES) if rng.random() < 0.4 else f"{_stem(rng)}.{rng.choice(_EXTENSIONS)}"


def _parts(rng: Random) -> list[str]:
    """One to three folders."""
    return [rng.choice(_FOLDERS) if rng.random() < 0.5 else _stem(rng) for _ in range(rng.choice((1, 1, 2, 3)))]


def _joined(rng: Random, parts: list[str]) -> str:
    """A path of Windows, of a home folder, absolute or relative."""
    style = rng.random()
    if style < 0.3:
        drive = rng.choice(("C:", "C:", "D:", "E:"))
        middle = ["Users", rng.choice(_NAMES)] if rng.random() < 0.5 else []
        return "\\".join([drive, *middle, *parts])
    if style < 0.5:
        return "/".join(["~", *parts])
    if style < 0.7:
        return "/".join([f"/home/{rng.choice(_NAMES)}", *parts])
    if style < 0.85:
        return "/".join([f"/{rng.choice(('tmp', 'var', 'opt', 'srv', 'data', 'mnt', 'etc'))}", *parts])
    return "/".join([*rng.choice(((), (".",), ("..",))), *parts])


def _said(rng: Random, sentences: tuple[str, ...]) -> str:
    return rng.choice(sentences).format(
        x=_word(rng),
        y=_word(rng),
        n=rng.randint(1, 9999),
        m=rng.randint(0, 99),
        who=rng.choice(_NAMES).capitalize(),
        day=rng.choice(_DAYS),
    )
