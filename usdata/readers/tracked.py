"""What the header of a tracked sequence says of its frames, as PlusToolkit and 3D Slicer write it into MetaImage and NRRD files.

In: the fields `Seq_Frame0007_Timestamp` and their like, and the orientation. Out: `FrameFacts`. Guarantees: times are exact and ascend, or
are left out with a note; of free text nothing is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from usdata.errors import ReadError
from usdata.readers.raw_frames import FrameFacts
from usdata.readers.raw_headers import plain_word

# A sequence whose numbers are noise must not fill the memory.
_MAX_DESCRIBED_FRAMES = 500_000
# Time stamps are kept to the nanosecond; anything finer is noise of a float's printing.
_DECIMALS = 9
_MAX_STAMP = 9_000_000_000

_SEQUENCE_FIELD = re.compile(r"Seq_Frame([0-9]{1,9})_(\w+)", re.ASCII)
_STAMP = re.compile(r"[+-]?(?:[0-9]{1,12}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?")


class TrackedFields:
    """Fields of single frames, as PlusToolkit and 3D Slicer write them into MetaImage and NRRD headers: `Seq_Frame0007_Timestamp`.

    Transforms are passed over; what is kept are an image's status and its time.

    Attributes:
        numbers: Of the frames that have fields.
        invalid: Of those whose image is marked as anything but OK.
        stamps: Times in seconds, as written.
    """

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.invalid: set[int] = set()
        self.stamps: dict[int, str] = {}

    def add(self, path: Path, key: str, value: str) -> bool:
        """Take a field, if it is one of a frame.

        Raises:
            ReadError: So many frames have fields that the numbers must be noise.
        """
        match = _SEQUENCE_FIELD.fullmatch(key)
        if match is None:
            return False
        number, what = int(match[1]), match[2]
        self.numbers.add(number)
        if len(self.numbers) > _MAX_DESCRIBED_FRAMES:
            raise ReadError(path, f"its header describes more than {_MAX_DESCRIBED_FRAMES} frames", "get the file again, or leave it out")
        if what == "Timestamp":
            self.stamps[number] = value[:80]
        elif what in ("ImageStatus", "Status") and value.upper() != "OK":
            self.invalid.add(number)
        return True

    def facts(self, frames: int, orientation: str) -> FrameFacts:
        """What the fields say of the frames that there are.

        Args:
            frames: How many pictures the header declares.
            orientation: The field UltrasoundImageOrientation. Pictures are turned to MF, as PlusToolkit does when it reads: x towards the
                marked side of the probe, y away from it.
        """
        place, notes = self._places(frames)
        stamps = {place[number]: text for number, text in self.stamps.items() if number in place}
        time_base, pts, odd = exact_times(stamps)
        untimed = frames - len(pts)
        if time_base is not None and untimed:
            notes.append(f"{untimed} of {frames} frames have no time stamp" + (", or one that is not later than the last" if odd else ""))
        elif odd:
            notes.append("the time stamps of its frames cannot be read")
        transpose, flip_x, flip_y, unknown = _orientation(orientation)
        invalid = frozenset(place[number] for number in self.invalid if number in place)
        return FrameFacts(time_base, pts, invalid, transpose, flip_x, flip_y, (*notes, *unknown))

    def _places(self, frames: int) -> tuple[dict[int, int], list[str]]:
        """The index of each number's frame, and a note where the numbers are not those of the frames."""
        within = {number: number for number in self.numbers if number < frames}
        beyond = len(self.numbers) - len(within)
        if not beyond:
            return within, []
        if len(self.numbers) == frames:
            # As many numbers as pictures: they are names, not places.
            return {number: index for index, number in enumerate(sorted(self.numbers))}, [
                f"the numbers of its frames run to {max(self.numbers)} for {frames} pictures; they were taken in order"
            ]
        return within, [f"its header describes {beyond} frames (up to number {max(self.numbers)}) that are not there"]


def exact_times(stamps: Mapping[int, str]) -> tuple[Fraction | None, dict[int, int], int]:
    """Time stamps as whole ticks of a power of ten.

    Args:
        stamps: Seconds as decimal numbers, by the index of their frame.

    Returns:
        The time base, None without any time; the ticks of each frame that has a time, which ascend; and how many stamps are none: not a
        number, or not later than the last.
    """
    times: dict[int, Decimal] = {}
    last: Decimal | None = None
    for index in sorted(stamps):
        time = _decimal(stamps[index])
        if time is not None and (last is None or time > last):
            times[index] = last = time
    if not times:
        return None, {}, len(stamps)
    places = max([0, *(-_exponent(time) for time in times.values())])
    return Fraction(1, 10**places), {index: int(time.scaleb(places)) for index, time in times.items()}, len(stamps) - len(times)


def _exponent(time: Decimal) -> int:
    exponent = time.as_tuple().exponent
    assert isinstance(exponent, int)  # only not-a-number and infinity have another
    return exponent


def _decimal(text: str) -> Decimal | None:
    """The exact time, without zeros at its end; rounded to nanoseconds."""
    if _STAMP.fullmatch(text.strip()) is None:
        return None
    time = Decimal(text.strip())
    if abs(time) > _MAX_STAMP:
        return None
    rounded = round(time, _DECIMALS) if _exponent(time) < -_DECIMALS else time
    return rounded.normalize()


def _orientation(word: str) -> tuple[bool, bool, bool, tuple[str, ...]]:
    """Whether to transpose, mirror x and mirror y, which turns pictures to MF; and a note on a word that is not understood.

    The first two letters say where x and y lead: to the marked or unmarked side of the probe, far from it or near. A third is for volumes.
    """
    letters = word.strip().upper()
    if not letters:
        return False, False, False, ()
    if re.fullmatch("[MU][FN][AD]?", letters):
        return False, letters[0] == "U", letters[1] == "N", ()
    if re.fullmatch("[FN][MU][AD]?", letters):
        return True, letters[1] == "U", letters[0] == "N", ()
    return False, False, False, (f"its orientation is {plain_word(letters)}, which is not known: frames are as stored",)


def check_is_pictures(path: Path, tracked: TrackedFields, image_type: str, sizes: Sequence[int]) -> None:
    """Refuse sequences that hold no B-mode pictures.

    Raises:
        ReadError: They hold transforms alone, or radio-frequency data.
    """
    if 0 in sizes:
        what = "is a tracked sequence of transforms alone" if tracked.numbers else "declares a size of 0"
        raise ReadError(path, f"{what}: it holds no pictures", "leave it out")
    kind = image_type.strip().upper()
    if kind not in ("BRIGHTNESS", "RGB_COLOR", ""):
        what = "radio-frequency data" if kind.startswith("RF_") else "data of another kind"
        raise ReadError(path, f"holds {what} (UltrasoundImageType is {plain_word(kind)}), not pictures", "convert it to B-mode first")
