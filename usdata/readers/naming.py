"""Numbers in the names of images: their order, the sequences they form, and the numbers that are missing."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# Fewer images than these are as likely a few stills with numbers in their names.
SHORTEST_SEQUENCE = 3
_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)
# Of fewer images a common distance of their numbers says nothing: 10 and 12 lack 11.
SURE_OF_THE_STEP = 5
# A gap in the numbering longer than this is another numbering (dates, identifiers), not lost frames.
MAX_MISSING = 10_000


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A sort key that compares the numbers in a name as numbers: frame9 < frame10 < frame00011."""
    parts = re.split(r"([0-9]+)", path.stem)
    key = [(int(part), "") if position % 2 else (-1, part) for position, part in enumerate(parts)]
    return key, path.name


def sequence_pattern(name: str) -> str | None:
    """The name of an image with its last number replaced by '#'; None where it holds no number."""
    stem, dot, suffix = name.rpartition(".")
    match = _NUMBERED.fullmatch(stem if dot else name)
    return None if match is None else f"{match[1]}#{match[3]}{dot}{suffix if dot else ''}"


def find_sequences(images: Iterable[str]) -> dict[str, list[str]]:
    """Images that lie in one folder and whose names differ in their last number alone.

    Args:
        images: Paths with forward slashes.

    Returns:
        The pattern of each sequence of at least three images (`scan/left_#.png`) to its images in the order of their numbers.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for path in images:
        folder, slash, name = path.rpartition("/")
        pattern = sequence_pattern(name)
        if pattern is not None:
            alike[f"{folder}{slash}{pattern}"].append(path)
    return {
        pattern: sorted(found, key=lambda path: natural_order(Path(path)))
        for pattern, found in sorted(alike.items())
        if len(found) >= SHORTEST_SEQUENCE
    }


def missing_numbers(names: list[str]) -> tuple[int, ...]:
    """The numbers missing between the first and the last of a numbered sequence.

    Args:
        names: File names without suffix. The last number in each is its place, provided that the text around it is the same in all.

    Returns:
        The missing numbers in ascending order, on the grid that the others share (25, 75, 175 lack 125); empty where the names are not
        one numbered sequence.
    """
    matches = [_NUMBERED.fullmatch(name) for name in names]
    if not matches or any(match is None for match in matches):
        return ()
    frames = [(match[1], match[3]) for match in matches if match is not None]
    numbers = {int(match[2]) for match in matches if match is not None}
    if len(set(frames)) > 1 or len(numbers) < len(names) or max(numbers) - min(numbers) - len(numbers) > MAX_MISSING:
        return ()
    step = math.gcd(*(number - min(numbers) for number in numbers)) if len(numbers) >= SURE_OF_THE_STEP else 1
    return tuple(number for number in range(min(numbers), max(numbers), step) if number not in numbers)
