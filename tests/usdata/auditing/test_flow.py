"""The flow: each reason at its stage, and every stage adds up, on planted sets and drawn ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.usdata.auditing.planted import DECODED, FRAMES_PER_CLIP, Planted
from usdata.auditing import audit

# What the build writes of a clip that it leaves out, and the stage that it belongs to.
REASONS = {
    "cannot be opened: moov atom not found": ("failed", "decoded"),
    "not ultrasound media (text)": ("excluded", "decoded"),
    "cut short: 12 frames of 40 declared decode (read.truncated: exclude)": ("excluded", "decoded"),
    "is colour doppler, which the recipe does not keep (modes)": ("excluded", "mode"),
    "held back for review: no field of view: nothing moves": ("excluded", "field_of_view"),
    "rejected in review": ("excluded", "field_of_view"),
    "every frame that decodes is blank, damaged or invalid": ("excluded", "unique"),
}
UNREAD = ("cannot be opened: moov atom not found", "not ultrasound media (text)")


def leave_out(planted: Planted, number: int, reason: str) -> None:
    """Leave a clip out as a build does: its frames are excluded with it."""
    video = planted.videos[number]["video_id"]
    decoded = 0 if reason in UNREAD else DECODED
    planted.set_video(number, status=REASONS[reason][0], reason=reason, frames_kept=0, frames_decoded=decoded)
    rows = [row for row in planted.excluded if row["video_id"] == video]
    planted.drop_frames(video)
    if decoded:
        planted.excluded += [{**rows[0], "frame_index": index, "reason": "clip_excluded"} for index in range(decoded)]


def flow_of(planted: Planted, folder: Path) -> dict[str, Any]:
    return audit(planted.write(folder, images=False), write_report=False, pictures=False).statistics["flow"]


def check_sums(stages: list[dict[str, Any]]) -> None:
    for before, after in pairwise(stages):
        assert before["clips"] == after["clips"] + sum(row["clips"] for row in after["left_out"])
        if before["frames"] is not None:
            assert before["frames"] == after["frames"] + sum(row["frames"] for row in after["left_out"])


def test_each_reason_is_told_at_its_stage(tmp_path: Path) -> None:
    planted = Planted(clips=20)
    for number, reason in enumerate(REASONS):
        leave_out(planted, number, reason)
    stages = {stage["stage"]: stage for stage in flow_of(planted, tmp_path)["stages"]}
    assert list(stages) == ["found", "decoded", "mode", "field_of_view", "unique", "split"]
    check_sums(list(stages.values()))
    assert (stages["found"]["clips"], stages["found"]["frames"], stages["found"]["left_out"]) == (20, None, [])
    assert [stage["clips"] for stage in stages.values()] == [20, 17, 16, 14, 13, 13]
    # Of 18 clips that decode, one is cut short; each has 12 frames, and of a kept one 2 repeat and 3 are kept.
    assert [stage["frames"] for stage in stages.values()] == [None, 17 * 12, 16 * 12, 14 * 12, 13 * 10, 13 * 3]
    assert stages["mode"]["left_out"] == [{"reason": "is colour doppler, which the recipe does not keep (modes)", "clips": 1, "frames": 12}]
    assert {row["reason"]: row["frames"] for row in stages["unique"]["left_out"]} == {
        "every frame that decodes is blank, damaged or invalid": 12,
        "near repeat": 26,
    }
    assert stages["split"]["left_out"] == [{"reason": "not sampled", "clips": 0, "frames": 13 * 7}]
    assert stages["split"]["parts"] == [{"split": "train", "clips": 13, "frames": 39}]


@pytest.mark.parametrize("seed", range(6))
def test_any_flow_adds_up_and_ends_with_the_kept_frames(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    planted = Planted(clips=24)
    reasons = list(REASONS)
    gone = draw.choice(24, int(draw.integers(0, 24)), replace=False)
    for number in gone:
        leave_out(planted, int(number), reasons[int(draw.integers(len(reasons)))])
    kinds = ["blank", "damaged", "invalid", "redundant", "repeats_period", "not_sampled", "near_repeat", "a new reason"]
    for row in planted.excluded:
        if row["reason"] != "clip_excluded":
            row["reason"] = kinds[int(draw.integers(len(kinds)))]
    for row in planted.frames:
        row["split"] = ["train", "val", "test"][int(draw.integers(3))]
    flow = flow_of(planted, tmp_path)
    check_sums(flow["stages"])
    last = flow["stages"][-1]
    assert (last["clips"], last["frames"]) == (24 - len(gone), FRAMES_PER_CLIP * (24 - len(gone)))
    assert sum(part["frames"] for part in last["parts"]) == last["frames"]
    left_out = [row for stage in flow["stages"] for row in stage["left_out"]]
    assert sum(row["clips"] for row in left_out) == len(gone)
    assert "unaccounted" not in {row["reason"] for row in left_out}


def test_frames_without_a_reason_are_unaccounted_and_told(tmp_path: Path) -> None:
    planted = Planted()
    planted.excluded = planted.excluded[1:]
    last = flow_of(planted, tmp_path)["stages"][-1]
    assert {"reason": "unaccounted", "clips": 0, "frames": 1} in last["left_out"]


def test_clips_left_out_for_one_reason_are_counted_together(tmp_path: Path) -> None:
    planted = Planted(clips=70)
    for number in range(64):
        reason = f"cut short: {number} frames of 99 declared decode (read.truncated: exclude)"
        planted.set_video(number, status="excluded", reason=reason, frames_kept=0)
        planted.drop_frames(planted.videos[number]["video_id"])
    [row] = flow_of(planted, tmp_path / "one")["stages"][1]["left_out"]
    assert row["clips"] == 64
    for number in range(64):
        planted.videos[number]["reason"] = f"a reason of its own: {number}"
    rows = flow_of(planted, tmp_path / "two")["stages"][4]["left_out"][:-1]
    assert (len(rows), rows[-1]["reason"], rows[-1]["clips"]) == (51, "14 other reasons", 14)
