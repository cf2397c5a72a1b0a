"""Twenty thousand frames: seconds, growth no faster than the set's, and the numbers of the small set times the copies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.benchmark_programs import program
from tests.usdata.auditing.planted import Planted, duplicate
from usdata.auditing import AuditResult, audit

REPOSITORY = Path(__file__).resolve().parents[3]
CLIPS, FRAMES = 1000, 20_000


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    planted = Planted(clips=20)
    planted.set_video(6, flags=["upconverted", "near_repeats"], fps_effective=12.0)
    planted.set_video(7, review="needed", review_reason="no field of view")
    planted.duplicates = [duplicate("clinic/v04", "clinic/v05")]
    return planted.write(tmp_path_factory.mktemp("small"), images=False)


def enlarged(small: Path, large: Path, clips: int, frames: int) -> Path:
    program("audit").enlarge(small, large, clips=clips, frames=frames)
    return large


def timed(folder: Path) -> tuple[AuditResult, float]:
    start = time.process_time()
    result = audit(folder, pictures=False)
    return result, time.process_time() - start


def test_a_large_set_is_counted_in_seconds(small: Path, tmp_path: Path) -> None:
    before = audit(small, write_report=False, pictures=False)
    fifth, seconds_of_fifth = timed(enlarged(small, tmp_path / "fifth", CLIPS // 5, FRAMES // 5))
    whole, seconds = timed(enlarged(small, tmp_path / "whole", CLIPS, FRAMES))
    totals = whole.statistics["totals"]
    assert (totals["clips"], totals["frames"], totals["patients"]) == (CLIPS, FRAMES, CLIPS // 2)
    assert fifth.statistics["totals"]["frames"] == FRAMES // 5
    copies = CLIPS // 20
    rows = {finding.id: len(finding.rows) for finding in whole.findings}
    one_by_one = {"upconverted-clips", "review-waiting", "duplicate-clips"}
    assert one_by_one <= rows.keys()
    for finding in before.findings:
        if finding.id in one_by_one:
            assert rows[finding.id] == copies * len(finding.rows)
    assert "unaccounted-frames" not in rows
    # Five times the set; on an idle machine 1.4 times the seconds, most of which the probe's forests take.
    assert seconds < 20
    assert seconds < 7 * seconds_of_fifth + 1
