"""Results that are lists, and words that point at one of their lines: "the second one", "the last", "that file"."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

from dualtune_edge_kit.training.data import values
from dualtune_edge_kit.training.data.values import TRAIN, Pool

Make: TypeAlias = Callable[[Random, Pool], str]

_ORDINALS: Final = (
    ("first", "1st", "number one", "number 1"),
    ("second", "2nd", "number two", "number 2"),
    ("third", "3rd", "number three", "number 3"),
    ("fourth", "4th", "number four", "number 4"),
    ("fifth", "5th", "number five", "number 5"),
    ("sixth", "6th", "number six", "number 6"),
)
_LAST: Final = ("the last one", "the last one", "the last", "the last of them", "the final one", "the bottom one")
_TOP: Final = ("the top one", "the one at the top", "the uppermost one")
_ONLY: Final = ("it", "that", "that one", "this one", "the same one", "the one you found", "that {noun}", "the {noun}")
_NOUNS: Final[dict[Make, tuple[str, ...]]] = {
    values.file: ("file", "document", "path"),
    values.relative: ("file", "document", "entry"),
    values.folder: ("folder", "directory", "path"),
    values.repository: ("repository", "repo", "project"),
    values.branch: ("branch", "line", "entry"),
    values.revision: ("commit", "revision", "version"),
    values.sha: ("commit", "revision", "hash"),
    values.media: ("picture", "image", "file"),
    values.noun: ("word", "name", "entry"),
    values.message: ("message", "note", "line"),
    values.phrase: ("line", "entry", "item"),
}
POINTABLE: Final[tuple[Make, ...]] = tuple(_NOUNS)


@dataclass(frozen=True)
class Listing:
    """A result, the values that stand in its lines, and their maker."""

    text: str
    items: tuple[str, ...]
    make: Make


def listing(rng: Random, make: Make, count: int) -> Listing:
    """``count`` values a line each, bare or with sizes, dates, words or numbers beside them."""
    items = tuple(dict.fromkeys(make(rng, TRAIN) for _ in range(count)))
    style = rng.random()
    if style < 0.35:
        lines = list(items)
    elif style < 0.5:
        lines = [f"{item} {values.message(rng, TRAIN)}" for item in items]
    elif style < 0.6:
        mark = rng.choice(("[FILE] ", "- ", "* ", "> ", "  "))
        lines = [f"{mark}{item}" for item in items]
    elif style < 0.7:
        gap = rng.choice(("  ", "    ", " ", "\t", ", "))
        lines = [f"{item}{gap}{_size(rng)}" for item in items]
    elif style < 0.78:
        lines = [f"{_day(rng)} {item}" for item in items]
    elif style < 0.84:
        lines = [f"{_size(rng)} {_day(rng)} {item}" for item in items]
    elif style < 0.9:
        mark = rng.choice((". ", ") ", ": "))
        lines = [f"{number}{mark}{item}" for number, item in enumerate(items, start=1)]
    elif style < 0.95:
        lines = [f"Commit: '{item}'\nAuthor: {values.noun(rng, TRAIN)}" for item in items]
    else:
        lines = [f"{values.noun(rng, TRAIN)}: {item}" for item in items]
    head = f"{values.noun(rng, TRAIN).capitalize()}:\n" if rng.random() < 0.12 else ""
    return Listing(head + "\n".join(lines), items, make)


def pointed(rng: Random, shown: Listing) -> tuple[str, str]:
    """(words that point at a line, its value)."""
    count = len(shown.items)
    noun = rng.choice(_NOUNS[shown.make])
    if count == 1 and rng.random() < 0.7:
        return rng.choice(_ONLY).format(noun=noun), shown.items[0]
    style = rng.random()
    if style < 0.25:
        return rng.choice((*_LAST, f"the last {noun}", f"the last {noun}")), shown.items[-1]
    if style < 0.3:
        return rng.choice(_TOP), shown.items[0]
    if style < 0.34 and count > 2:
        return rng.choice(("the second to last one", "the last but one")), shown.items[-2]
    which = rng.randrange(count)
    word = rng.choice(_ORDINALS[which][:2]) if rng.random() < 0.85 else rng.choice(_ORDINALS[which][2:])
    if word.startswith("number"):
        return word, shown.items[which]
    after = rng.choice((" one", " one", " one", f" {noun}", f" {noun}", "", " of them", " result", " line"))
    return f"the {word}{after}", shown.items[which]


def _size(rng: Random) -> str:
    style = rng.random()
    if style < 0.3:
        return str(rng.randint(0, 99999))
    return (
        f"{rng.randint(0, 999)}{rng.choice(('', '.' + str(rng.randint(0, 9))))} {rng.choice(('B', 'KB', 'MB', 'kB'))}"
    )


def _day(rng: Random) -> str:
    return f"{rng.randint(2015, 2029)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
