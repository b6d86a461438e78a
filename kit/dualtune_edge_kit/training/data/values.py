# ruff: noqa: SIM905 - word lists read better as text
"""Values for the slots of a sentence, which are its arguments: paths, branches, hashes, messages, numbers, dates."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from dualtune_edge_kit.training.data import words

MONTHS: Final = tuple("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())
UNITS: Final = ("days", "weeks", "months", "hours", "years")


@dataclass(frozen=True)
class Pool:
    """The words of values. A share of ``invented`` ones keeps the model from learning a list by heart."""

    nouns: Sequence[str]
    verbs: Sequence[str]
    extensions: Sequence[str]
    media: Sequence[str]
    roots: Sequence[str]
    prefixes: Sequence[str]
    invented: float
    digits: tuple[str, ...]  # the last digits of numbers: training and held-out numbers differ


TRAIN: Final = Pool(
    nouns=words.TRAIN_NOUNS,
    verbs=words.TRAIN_VERBS,
    extensions=words.TRAIN_EXTENSIONS,
    media=words.TRAIN_MEDIA,
    roots=words.TRAIN_ROOTS,
    prefixes=words.TRAIN_PREFIXES,
    invented=0.6,
    digits=tuple("0123458"),
)
HELDOUT: Final = Pool(
    nouns=words.HELDOUT_NOUNS,
    verbs=words.HELDOUT_VERBS,
    extensions=words.HELDOUT_EXTENSIONS,
    media=words.HELDOUT_MEDIA,
    roots=words.HELDOUT_ROOTS,
    prefixes=words.HELDOUT_PREFIXES,
    invented=0.0,
    digits=tuple("679"),
)


def noun(rng: Random, pool: Pool) -> str:
    """One noun of the pool, or an invented word."""
    return words.invented(rng) if rng.random() < pool.invented else rng.choice(pool.nouns)


def one(rng: Random, pool: Pool, known: Sequence[str]) -> str:
    """One of a short list, or in training something similar: a short list is learnt by heart, not copied."""
    chosen = rng.choice(known)
    if pool.invented and rng.random() < 0.5:
        letters = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 4)))
        word = letters if len(chosen) < 5 and rng.random() < 0.6 else words.invented(rng)
        return f"/{word}" if chosen.startswith("/") else word
    return chosen


def stem(rng: Random, pool: Pool) -> str:
    """A file's or folder's name without extension: one or two words, sometimes numbered."""
    first = noun(rng, pool)
    style = rng.random()
    if style < 0.4:
        return first
    if style < 0.6:
        return f"{first}_{noun(rng, pool)}"
    if style < 0.75:
        return f"{first}-{noun(rng, pool)}"
    if style < 0.83:
        return first.capitalize()
    if style < 0.92:
        return f"{first}{number(rng, pool, 99)}"
    return f"{first}_{number(rng, pool, 2000)}"


def number(rng: Random, pool: Pool, most: int) -> int:
    """A whole number from 1 to about ``most`` whose last digit belongs to the pool."""
    tens = rng.randint(0, max(0, most // 10 - 1)) if rng.random() < 0.7 else 0
    last = rng.choice(pool.digits)
    return max(1, int(f"{tens}{last}")) if (tens or last != "0") else 10


def folder(rng: Random, pool: Pool) -> str:
    """An absolute or relative folder path."""
    depth = rng.choice((1, 1, 1, 2, 2, 3))
    parts = "/".join(stem(rng, pool) for _ in range(depth))
    return f"{one(rng, pool, pool.roots)}/{parts}" if rng.random() < 0.75 else parts


def filename(rng: Random, pool: Pool) -> str:
    """A file's name with its extension."""
    return f"{stem(rng, pool)}.{one(rng, pool, pool.extensions)}"


def file(rng: Random, pool: Pool) -> str:
    """A path of a text file."""
    return filename(rng, pool) if rng.random() < 0.15 else f"{folder(rng, pool)}/{filename(rng, pool)}"


def media(rng: Random, pool: Pool) -> str:
    """A path of an image or a sound."""
    return f"{folder(rng, pool)}/{stem(rng, pool)}.{one(rng, pool, pool.media)}"


def repository(rng: Random, pool: Pool) -> str:
    """A repository's folder."""
    return f"{one(rng, pool, pool.roots)}/{stem(rng, pool)}" if rng.random() < 0.6 else folder(rng, pool)


def relative(rng: Random, pool: Pool) -> str:
    """A file as git names it: relative to the repository."""
    return filename(rng, pool) if rng.random() < 0.5 else f"{stem(rng, pool)}/{filename(rng, pool)}"


def branch(rng: Random, pool: Pool) -> str:
    """A branch's name."""
    style = rng.random()
    if style < 0.5:
        return f"{one(rng, pool, pool.prefixes)}/{noun(rng, pool)}-{noun(rng, pool)}"
    if style < 0.7:
        return f"{noun(rng, pool)}-{noun(rng, pool)}"
    if style < 0.85:
        return noun(rng, pool)
    return f"{one(rng, pool, pool.prefixes)}-{number(rng, pool, 9)}.{number(rng, pool, 30)}"


def sha(rng: Random, pool: Pool) -> str:
    """A short commit hash."""
    return "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((7, 8, 9)) - 1)) + rng.choice(pool.digits)


def revision(rng: Random, pool: Pool) -> str:
    """A commit, a tag, or a path in a commit."""
    style = rng.random()
    if style < 0.5:
        return sha(rng, pool)
    if style < 0.7:
        return f"HEAD~{number(rng, pool, 20)}"
    if style < 0.85:
        return f"v{number(rng, pool, 9)}.{number(rng, pool, 20)}.{number(rng, pool, 9)}"
    return f"{sha(rng, pool)}:{relative(rng, pool)}"


def message(rng: Random, pool: Pool) -> str:
    """A commit message."""
    said = f"{rng.choice(pool.verbs)} {rng.choice(('the ', 'a ', '', '', 'old ', 'broken '))}{noun(rng, pool)}"
    said += rng.choice(
        ("", f" {noun(rng, pool)}", f" in {noun(rng, pool)}", f" for {noun(rng, pool)} {noun(rng, pool)}")
    )
    style = rng.random()
    if style < 0.15:
        return f"{noun(rng, pool)}: {said}"
    return said.capitalize() if style < 0.7 else said


def sentence(rng: Random, pool: Pool) -> str:
    """A line of text for a file."""
    count = rng.randint(1, 6)
    return " ".join(rng.choice(pool.verbs) if rng.random() < 0.2 else noun(rng, pool) for _ in range(count))


def phrase(rng: Random, pool: Pool) -> str:
    """A short piece of a line: what an edit looks for or puts in its place."""
    style = rng.random()
    if style < 0.3:
        return f"{noun(rng, pool)} = {number(rng, pool, 500)}"
    if style < 0.5:
        return f"{noun(rng, pool)}_{noun(rng, pool)}"
    return " ".join(noun(rng, pool) for _ in range(rng.randint(1, 3)))


def glob(rng: Random, pool: Pool) -> str:
    """A glob pattern."""
    ending = one(rng, pool, pool.extensions)
    return rng.choice(
        (
            f"*.{ending}",
            f"**/*.{ending}",
            f"{noun(rng, pool)}*",
            f"*{noun(rng, pool)}*.{ending}",
            f"**/{stem(rng, pool)}.{ending}",
        )
    )


def exclusion(rng: Random, pool: Pool) -> str:
    """What a search or a tree leaves out."""
    return glob(rng, pool) if rng.random() < 0.4 else stem(rng, pool)


def date(rng: Random, pool: Pool) -> str:
    """A moment as git understands it: ISO date or time, relative, or spelt."""
    style = rng.random()
    year, month, day = rng.randint(2015, 2029), rng.randint(1, 12), rng.randint(1, 28)
    if style < 0.4:
        return f"{year}-{month:02}-{day:02}"
    if style < 0.6:
        return f"{year}-{month:02}-{day:02}T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:00"
    if style < 0.85:
        return f"{number(rng, pool, 40)} {rng.choice(UNITS)} ago"
    return f"{rng.choice(MONTHS)} {day} {year}"
