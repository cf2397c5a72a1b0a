"""Which frames of a clip to keep.

In: a rule, and the positions and exact times of the clip's unique usable frames. Out: the positions kept.
Guarantees: no frame twice, ascending, and no float: `choose` is the definition over a whole clip, `Sampler` the same answer frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_PARAMETER_OF = {"rate": "hz", "count": "count", "every": "every", "all": None}


class SamplingRule(BaseModel):
    """How the frames of a source are thinned; exactly the parameter of the chosen rule is given.

    - rate: the first frame at or after start + k/hz for k = 0, 1, 2, ..., where start is the time of the first frame. Frames without any
      time (stills, folders of images) are all kept.
    - count: exactly `count` frames, evenly spaced: positions floor((2i+1)·T/(2·count)) of T frames; all of them when T ≤ count.
    - every: positions 0, every, 2·every, ...
    - all: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rule: Literal["rate", "count", "every", "all"] = "rate"
    """Which rule thins the frames."""
    hz: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Frames a second (rule: rate); taken as the decimal number that was written, so 0.1 is a tenth."""
    count: int | None = Field(default=None, gt=0)
    """Frames a clip (rule: count)."""
    every: int | None = Field(default=None, gt=0)
    """Distance between kept frames, in unique frames (rule: every)."""
    cap: int | None = Field(default=None, gt=0)
    """At most so many frames of a clip, the first ones of what the rule keeps, as the official POCUS build does; None for no limit."""

    @model_validator(mode="after")
    def _one_parameter(self) -> Self:
        needed = _PARAMETER_OF[self.rule]
        for name in ("hz", "count", "every"):
            given = getattr(self, name) is not None
            if name == needed and not given:
                raise ValueError(f"rule '{self.rule}' needs '{name}'")
            if name != needed and given:
                raise ValueError(f"'{name}' does not belong to rule '{self.rule}'")
        return self

    @property
    def exact_hz(self) -> Fraction:
        """The rate as the decimal number that was written."""
        return Fraction(str(self.hz))


def choose(rule: SamplingRule, times: Sequence[Fraction | None]) -> list[int]:
    """The positions that a rule keeps of a clip.

    Args:
        rule: The rule.
        times: The time in seconds of each unique usable frame in the order they came, None where it has none. A frame without a time
            stands at the time of the frame before it; frames before the first time are all kept by the rule "rate".

    Returns:
        Ascending positions in `times`.
    """
    total = len(times)
    if rule.rule == "rate":
        kept = _at_rate(rule.exact_hz, times)
    elif rule.rule == "count":
        assert rule.count is not None
        wanted = rule.count
        kept = list(range(total)) if total <= wanted else [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]
    else:
        kept = list(range(0, total, rule.every or 1))
    return kept[: rule.cap]


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


class Sampler:
    """A rule applied while a clip passes, without knowing its end; keeps just what `choose` keeps.

    Raises:
        ValueError: The rule is "count", which needs the clip's total: use `choose` after the pass.
    """

    def __init__(self, rule: SamplingRule) -> None:
        if rule.rule == "count":
            raise ValueError("the rule 'count' needs the number of frames; choose() after the pass")
        self._rule = rule
        self._period = 1 / rule.exact_hz if rule.rule == "rate" else None
        self._kept = 0
        self._last_position = -1
        self._start: Fraction | None = None
        self._due: Fraction | None = None

    @property
    def untimed(self) -> bool:
        """No frame so far had a time, so a rule by rate kept them all."""
        return self._rule.rule == "rate" and self._last_position >= 0 and self._start is None

    @property
    def full(self) -> bool:
        """The cap is reached: nothing more will be kept."""
        return self._rule.cap is not None and self._kept >= self._rule.cap

    def offer(self, position: int, time: Fraction | None) -> bool:
        """Whether this frame is kept.

        Args:
            position: Its number among the clip's unique usable frames, ascending from 0.
            time: Its time in seconds; None where it has none.

        Raises:
            ValueError: The positions do not ascend.
        """
        if position <= self._last_position:
            raise ValueError(f"position {position} after {self._last_position}: frames are offered once, in order")
        self._last_position = position
        wanted = self._wanted(position, time) and not self.full
        self._kept += wanted
        return wanted

    def _wanted(self, position: int, time: Fraction | None) -> bool:
        if self._period is None:
            return position % (self._rule.every or 1) == 0
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
