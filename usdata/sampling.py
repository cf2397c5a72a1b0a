"""Which frames of a clip to keep.

In: a rule, and the positions, exact times and, where the rule compares them, pictures of the clip's frames. Out: the positions kept.
A rule proposes frames by position or time; redundancy, if it is asked for, then refuses those that are too like the last kept one.
Guarantees: no frame twice, ascending, and no float in a comparison of times: `choose` is the definition over a whole clip, `Sampler` the
same answer frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

_PARAMETERS_OF: dict[str, tuple[str, ...]] = {
    "rate": ("hz",), "stride": ("hz",), "count": ("count",), "every": ("every",), "novelty": ("below",), "all": (),
}  # fmt: skip
_GAPS = ("least_gap_s", "greatest_gap_s")
Picture = NDArray[np.uint8]


def _check_gaps(least_s: float | None, greatest_s: float | None) -> None:
    if least_s is not None and greatest_s is not None and least_s > greatest_s:
        raise ValueError("'least_gap_s' is longer than 'greatest_gap_s'")


@dataclass(frozen=True)
class Decision:
    """What a sampling rule says of one frame.

    Attributes:
        kept: Whether it is kept.
        similarity: Its correlation with the last kept frame, -1 to 1, where that decided; None where nothing was compared.
    """

    kept: bool
    similarity: float | None = None

    @property
    def redundant(self) -> bool:
        """It was compared with the last kept frame and is too like it."""
        return not self.kept and self.similarity is not None


class Redundancy(BaseModel):
    """When a frame is left out as too like the last kept one.

    The two are compared by Pearson's correlation of the pictures reduced to 64×64. Gaps do not count where a time is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    below: float = Field(gt=-1, le=1, allow_inf_nan=False)
    """Correlation with the last kept frame below which a frame is new."""
    least_gap_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds that must have passed since the last kept frame; a frame before that is left out without being compared. Null: none."""
    greatest_gap_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which a frame is kept, new or not; null: never."""

    @model_validator(mode="after")
    def _gaps_in_order(self) -> Self:
        _check_gaps(self.least_gap_s, self.greatest_gap_s)
        return self

    def decide(self, last: Fraction | None, time: Fraction | None, similarity: Callable[[], float]) -> Decision:
        """What becomes of a frame after the last kept one.

        Args:
            last: Time in seconds of the last kept frame; None where it has none.
            time: Of this frame.
            similarity: Gives the correlation of the two; asked only where the gap does not settle it.
        """
        gap = None if last is None or time is None else time - last
        if gap is not None and self.greatest_gap_s is not None and gap >= Fraction(str(self.greatest_gap_s)):
            return Decision(True)
        if gap is not None and self.least_gap_s is not None and gap < Fraction(str(self.least_gap_s)):
            return Decision(False)
        found = similarity()
        return Decision(found < self.below, found)


class SamplingRule(BaseModel):
    """How the frames of a source are thinned; exactly the parameters of the chosen rule are given.

    - rate: the first frame at or after start + k/hz for k = 0, 1, 2, ..., where start is the time of the first frame. Frames without any
      time (stills, folders of images) are all kept.
    - count: exactly `count` frames, evenly spaced: positions floor((2i+1)·T/(2·count)) of T frames; all of them when T ≤ count.
    - every: positions 0, every, 2·every, ...
    - stride: positions 0, k, 2k, ... with k = floor(rate / hz) and the rate that the container declares, at least 1; the POCUS builders'
      rule. It is `rate` done without looking at times: prefer that.
    - novelty: the first frame, then each whose correlation with the last kept one is smaller than `below` (Pearson's, of the pictures
      reduced to 64×64), not sooner than `least_gap_s` after that one, and in any case after `greatest_gap_s`. It is `all` with
      `redundancy`.
    - all: all.

    With `redundancy`, what the rule takes is compared with the last kept frame, and left out where it is too like that one; no other frame
    takes its place, so `count` then gives at most `count` frames. Places, totals and due times are what they are without it; `cap` counts
    what is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rule: Literal["rate", "count", "every", "stride", "novelty", "all"] = "rate"
    """Which rule thins the frames."""
    over: Literal["unique", "decoded"] = "unique"
    """What is thinned: unique frames; or all that decode, repeats and blank ones too, as scripts do."""
    hz: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Frames a second (rules: rate, stride); taken as the decimal number that was written, so 0.1 is a tenth."""
    count: int | None = Field(default=None, gt=0)
    """Frames a clip (rule: count)."""
    every: int | None = Field(default=None, gt=0)
    """Distance between kept frames, in frames (rule: every)."""
    below: float | None = Field(default=None, gt=-1, le=1, allow_inf_nan=False)
    """Correlation with the last kept frame below which a frame is new (rule: novelty)."""
    least_gap_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds that must have passed since the last kept frame (rule: novelty); null: none."""
    greatest_gap_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which a frame is kept, new or not (rule: novelty); null: never."""
    redundancy: Redundancy | None = None
    """When a frame that the rule takes is left out as too like the last kept one (any rule but novelty); null: never."""
    cap: int | None = Field(default=None, gt=0)
    """At most so many frames of a clip, the first ones of what the rule keeps, as the official POCUS build does; None for no limit."""

    @model_validator(mode="after")
    def _its_parameters(self) -> Self:
        needed = _PARAMETERS_OF[self.rule]
        for name in ("hz", "count", "every", "below", *_GAPS):
            given = getattr(self, name) is not None
            if name in needed and not given:
                raise ValueError(f"rule '{self.rule}' needs '{name}'")
            if given and name not in needed and not (name in _GAPS and self.rule == "novelty"):
                raise ValueError(f"'{name}' does not belong to rule '{self.rule}'")
        if self.rule == "novelty":
            if self.redundancy is not None:
                raise ValueError("'redundancy' does not belong to rule 'novelty', which compares by its own 'below' and gaps")
            _check_gaps(self.least_gap_s, self.greatest_gap_s)
        return self

    @property
    def compared(self) -> Redundancy | None:
        """How frames are compared with the last kept one, under the rule "novelty" too; None: they are not."""
        if self.rule != "novelty":
            return self.redundancy
        assert self.below is not None
        return Redundancy(below=self.below, least_gap_s=self.least_gap_s, greatest_gap_s=self.greatest_gap_s)

    @property
    def exact_hz(self) -> Fraction:
        """The rate as the decimal number that was written."""
        return Fraction(str(self.hz))

    def stride(self, declared_rate: Fraction | None) -> int:
        """Distance between kept frames under the rules every, stride, novelty and all.

        Args:
            declared_rate: What the container declares in frames a second; None where it declares nothing. The POCUS builders divide by zero
                there and where it is smaller than `hz`; here every frame is kept.
        """
        if self.rule == "stride":
            return 1 if declared_rate is None else max(1, math.floor(declared_rate / self.exact_hz))
        return self.every or 1


def choose(
    rule: SamplingRule,
    times: Sequence[Fraction | None],
    *,
    declared_rate: Fraction | None = None,
    pictures: Sequence[Picture] | None = None,
) -> list[int]:
    """The positions that a rule keeps of a clip.

    Args:
        rule: The rule.
        times: As in `proposed`.
        declared_rate: Frames a second as the container says (rule: stride).
        pictures: The frames, (H, W) uint8 of one size (rule novelty, and redundancy).

    Returns:
        Ascending positions in `times`.
    """
    kept = proposed(rule, times, declared_rate=declared_rate)
    compared = rule.compared
    if compared is not None:
        assert pictures is not None
        offered, kept = kept, []
        for position in offered:
            similarity = partial(correlation, pictures[kept[-1] if kept else position], pictures[position])
            if not kept or compared.decide(times[kept[-1]], times[position], similarity).kept:
                kept.append(position)
    return kept[: rule.cap]


def proposed(rule: SamplingRule, times: Sequence[Fraction | None], *, declared_rate: Fraction | None = None) -> list[int]:
    """The positions that a rule takes of a clip, before redundancy and cap.

    Args:
        rule: The rule.
        times: The time in seconds of each usable frame in the order they came, None where it has none. A frame without a time
            stands at the time of the frame before it; frames before the first time are all taken by the rule "rate".
        declared_rate: Frames a second as the container says (rule: stride).

    Returns:
        Ascending positions in `times`.
    """
    total = len(times)
    if rule.rule == "rate":
        return _at_rate(rule.exact_hz, times)
    if rule.rule == "count":
        assert rule.count is not None
        return list(range(total)) if total <= rule.count else [(2 * i + 1) * total // (2 * rule.count) for i in range(rule.count)]
    return list(range(0, total, rule.stride(declared_rate)))


def _at_rate(hz: Fraction, times: Sequence[Fraction | None]) -> list[int]:
    """A frame is the first at or after some start + k/hz when its own slot, floor((time - start)·hz), is beyond every slot before it."""
    start = next((time for time in times if time is not None), None)
    kept = []
    last_slot = -1
    for position, time in enumerate(times):
        if start is None or (time is None and last_slot < 0):
            kept.append(position)
        elif time is not None and (slot := math.floor((time - start) * hz)) > last_slot:
            kept.append(position)
            last_slot = slot
    return kept


def correlation(a: Picture, b: Picture) -> float:
    """Pearson's correlation of two pictures (H, W) uint8: sums in whole numbers, so equal on every machine.

    Two even pictures correlate with 1; an even one and any other with 0.
    """
    x, y = a.ravel().astype(np.int64), b.ravel().astype(np.int64)
    count, sum_x, sum_y = x.size, int(x.sum()), int(y.sum())
    spread_x = count * int((x * x).sum()) - sum_x**2
    spread_y = count * int((y * y).sum()) - sum_y**2
    if not spread_x or not spread_y:
        return 1.0 if spread_x == spread_y else 0.0
    return (count * int((x * y).sum()) - sum_x * sum_y) / math.sqrt(spread_x * spread_y)


class Sampler:
    """A rule applied while a clip passes, without knowing its end; keeps just what `choose` keeps.

    Args:
        rule: The rule.
        declared_rate: Frames a second as the container says (rule: stride).
        places: The positions that the rule takes, where they are known (rule: count); see `proposed`.

    Raises:
        ValueError: The rule is "count", which needs the clip's total, and its places are not given.
    """

    def __init__(self, rule: SamplingRule, declared_rate: Fraction | None = None, places: Collection[int] | None = None) -> None:
        if rule.rule == "count" and places is None:
            raise ValueError("the rule 'count' needs the number of frames: give its places, or choose() after the pass")
        self._rule = rule
        self._places = places
        self._compared = rule.compared
        self._period = 1 / rule.exact_hz if rule.rule == "rate" else None
        self._stride = rule.stride(declared_rate)
        self._kept = 0
        self._last_kept: tuple[Fraction | None, Picture] | None = None
        self._last_position = -1
        self._start: Fraction | None = None
        self._due: Fraction | None = None

    @property
    def untimed(self) -> bool:
        """No frame so far had a time, so a rule by rate took them all."""
        return self._rule.rule == "rate" and self._last_position >= 0 and self._start is None

    @property
    def full(self) -> bool:
        """The cap is reached: nothing more will be kept."""
        return self._rule.cap is not None and self._kept >= self._rule.cap

    def offer(self, position: int, time: Fraction | None, picture: Callable[[], Picture] | None = None) -> Decision:
        """Whether this frame is kept.

        Args:
            position: Its number among the clip's usable frames, ascending from 0.
            time: Its time in seconds; None where it has none.
            picture: Gives the reduced picture, (H, W) uint8 of the same size each time (rule novelty, and redundancy).

        Raises:
            ValueError: The positions do not ascend, or frames are to be compared and there is no picture.
        """
        if position <= self._last_position:
            raise ValueError(f"position {position} after {self._last_position}: frames are offered once, in order")
        self._last_position = position
        if self.full or not self._takes(position, time):
            return Decision(False)
        decision = Decision(True) if self._compared is None else self._compare(self._compared, time, picture)
        self._kept += decision.kept
        return decision

    def _takes(self, position: int, time: Fraction | None) -> bool:
        if self._places is not None:
            return position in self._places
        if self._period is None:
            return position % self._stride == 0
        if time is None:
            return self._due is None
        if self._start is None or self._due is None:
            self._start = time
            self._due = time + self._period
            return True
        if time < self._due:
            return False
        # A gap may have passed several due times: this one frame answers them all.
        self._due += ((time - self._due) // self._period + 1) * self._period
        return True

    def _compare(self, redundancy: Redundancy, time: Fraction | None, picture: Callable[[], Picture] | None) -> Decision:
        if picture is None:
            raise ValueError("frames that are compared need pictures")
        if self._last_kept is None:
            self._last_kept = time, picture()
            return Decision(True)
        last, before = self._last_kept
        decision = redundancy.decide(last, time, lambda: correlation(before, picture()))
        if decision.kept:
            self._last_kept = time, picture()
        return decision
