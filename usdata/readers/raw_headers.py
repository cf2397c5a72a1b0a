"""Fields of the headers of MetaImage, NRRD, NIfTI and HDF5: lines, numbers, spacing, ranges, axes; believed as far as they can be true."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from usdata.errors import ReadError

# A tracked sequence writes some eight fields of 150 bytes a frame: this is half an hour at 30 Hz.
_MAX_HEADER_BYTES = 64 << 20
_MAX_HEADER_LINES = 2_000_000
_ADVICE = "get the file again, or leave it out"


def header_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines of a header from where the file stands; bytes that are not UTF-8 survive, since they may be of a file's name.

    Raises:
        ReadError: There are so many that this is no header.
    """
    for _ in range(_MAX_HEADER_LINES):
        left = _MAX_HEADER_BYTES - file.tell()
        if left <= 0:
            break
        line = file.readline(left)
        if not line:
            return
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    raise ReadError(path, "its header does not end", _ADVICE)


def whole_numbers(path: Path, name: str, text: str) -> list[int]:
    """The whole numbers of a header's field.

    Raises:
        ReadError: There are others in it.
    """
    words = text.split()
    if not all(re.fullmatch(r"[+-]?[0-9]{1,18}", word) for word in words):
        raise ReadError(path, f"its header gives '{name}' as something else than whole numbers", _ADVICE)
    return [int(word) for word in words]


def plain_word(text: str) -> str:
    """A header's word for a message; free text may hold a name and is not repeated."""
    return f"'{text}'" if re.fullmatch(r"[A-Za-z0-9_ -]{1,24}", text) else "of no known form"


def spacing(values: Iterable[float]) -> tuple[tuple[float | None, float | None], tuple[str, ...]]:
    """Spacing of x and y in mm as far as it can be believed, and a note where it was not.

    Exactly 1 by 1 is what every one of these formats' writers puts where nothing is known, PlusToolkit's tracked sequences too.
    """
    chosen = tuple(values)[:2]
    if len(chosen) < 2:
        return (None, None), ()
    if chosen == (1.0, 1.0):
        return (None, None), ("its spacing of 1 × 1 is the format's default and was not believed",)
    if not all(0 < value < 1000 for value in chosen):
        return (None, None), ("its spacing cannot be one in millimetres and was not believed",)
    return (chosen[0], chosen[1]), ()


def decimals(text: str) -> list[float]:
    """The numbers of a header's field, not-a-number for words that are none."""
    return [
        float(word) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", word) else math.nan for word in text.split()
    ]


def one_axis_of_frames(path: Path, sizes: Sequence[int]) -> int:
    """How many frames there are, where at most one axis beyond the picture's two is longer than 1.

    Raises:
        ReadError: It is a volume over time.
    """
    if sum(size != 1 for size in sizes[2:]) > 1:
        raise ReadError(path, "is a volume over time, not a clip of pictures", "save each of its planes as a clip of its own")
    return math.prod(sizes[2:])


def declared_range(low: str | None, high: str | None) -> tuple[float, float] | None:
    """The same of a text header's two fields."""
    try:
        return usable_range(float(low or "nan"), float(high or "nan"))
    except ValueError:
        return None


def usable_range(low: float, high: float) -> tuple[float, float] | None:
    """The range of values that a header tells, or None where it cannot be one."""
    # Beyond these, arithmetic on the values overflows.
    if math.isfinite(low) and math.isfinite(high) and 1e-290 < high - low < 1e290:
        return low, high
    return None
