"""US-4 in number and layout: the plan's counts against the paper's table, and builds of the tree that it makes."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import usdata
from usdata.building import BuildResult
from usdata.phantoms import us4
from usdata.phantoms.us4 import FIELD, PARTS, plan_us4, write_us4

# Chen et al., MICCAI 2021, table 1: videos and images of each part.
PAPER = {
    "us4-butterfly": (22, 1_533),
    "us4-clust": (63, 3_150),
    "us4-liver-fibrosis": (296, 11_714),
    "us4-covid19-lusms": (670, 6_834),
}
ORGANS = {"us4-butterfly": ["lung"], "us4-clust": ["liver"], "us4-liver-fibrosis": ["liver"], "us4-covid19-lusms": ["lung"]}
CLASSES = {"us4-butterfly": 2, "us4-clust": 5, "us4-liver-fibrosis": 5, "us4-covid19-lusms": 4}
IMAGES_PER_VIDEO = {"us4-butterfly": 69.7, "us4-clust": 50.0, "us4-liver-fibrosis": 39.6, "us4-covid19-lusms": 10.2}
# Height, width, frame rate; image sequences have none on disk.
SIZES_AND_RATES = {"us4-butterfly": (658, 738, 23), "us4-clust": (434, 530, None), "us4-liver-fibrosis": (600, 807, 28)}


def test_the_plan_has_the_papers_counts() -> None:
    clips = plan_us4(0)
    assert {
        part: (sum(clip.part == part for clip in clips), sum(clip.kept for clip in clips if clip.part == part)) for part in PAPER
    } == PAPER
    assert len({clip.path for clip in clips}) == len({clip.seeds for clip in clips}) == len(clips) == 1_051
    assert sum(clip.kept for clip in clips) == 23_231
    assert all(clip.kept == 50 for clip in clips if clip.part == "us4-clust")
    assert len({clip.patient for clip in clips if clip.patient}) == 71
    assert all(part.height <= FIELD[0] and part.width <= FIELD[1] for part in PARTS)


def test_a_part_of_it_builds_to_what_truth_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = plan_us4(0)[:: 1_051 // 20]
    monkeypatch.setattr(us4, "plan_us4", lambda seed: chosen)
    write_us4(tmp_path / "tree", seed=0, workers=1)
    built = usdata.build("us4", raw=tmp_path / "tree", out=tmp_path / "set", workers=1)
    _check(built, {clip.path: clip.kept for clip in chosen})
    assert [row["clips_expected"] for row in built.sources] == [22, 63, 296, 670]
    table = {row["source"]: row for row in usdata.audit(built.out, write_report=False).statistics["sources"]}
    for part in PAPER:
        clips = [clip for clip in chosen if clip.part == part]
        row = table[part]
        assert (row["clips"], row["frames"], row["organs"]) == (len(clips), sum(clip.kept for clip in clips), ORGANS[part])
        assert row["labels_given"] == len({clip.prefix for clip in clips})
    assert any("source 'us4-clust' gives" in note for note in built.notes)


@pytest.mark.slow
def test_the_whole_of_it_builds_to_the_papers_counts(tmp_path: Path) -> None:
    made = usdata.phantom(tmp_path / "tree", like="us4")
    assert made.videos == 1_051
    built = usdata.build("us4", raw=made.out, out=tmp_path / "set")
    _check(built, {clip.path: clip.kept for clip in plan_us4(0)})
    assert {row["source"]: (row["clips"], row["frames"]) for row in built.sources} == PAPER
    assert built.counts["frames"] == 23_231
    assert built.notes == []
    assert made.seconds + built.seconds < 300
    data = usdata.load(built.out)
    assert data.duplicates.empty
    assert data.frames.label_index.nunique() == 12
    assert data.videos.query("source == 'us4-covid19-lusms' and status == 'ok'").group_id.nunique() == 71
    _check_audit(usdata.audit(built.out).statistics)


def _check_audit(statistics: dict[str, Any]) -> None:
    """The audit's table by source is the paper's table 1; sizes are a tenth of its, and its fourth part's sizes and rate are unknown."""
    table = {row["source"]: row for row in statistics["sources"]}
    assert {part: (row["clips"], row["frames"]) for part, row in table.items()} == PAPER
    assert {part: row["organs"] for part, row in table.items()} == ORGANS
    assert {part: row["labels_given"] for part, row in table.items()} == CLASSES
    assert {part: round(row["frames_a_clip"], 1) for part, row in table.items()} == IMAGES_PER_VIDEO
    for part, (height, width, rate) in SIZES_AND_RATES.items():
        row = table[part]
        assert (row["height"], row["width"]) == pytest.approx((height / 10, width / 10), abs=1)
        assert row["fps"] == (None if rate is None else pytest.approx(rate))
    totals = statistics["totals"]
    assert (totals["clips"], totals["frames"], totals["labels"], totals["patients"]) == (1_051, 23_231, 12, 71)
    assert statistics["set"]["organs"] == ["liver", "lung"]


def _check(built: BuildResult, kept: dict[str, int]) -> None:
    videos = usdata.load(built.out).videos.query("status == 'ok'")
    assert dict(zip(videos.path, videos.frames_kept, strict=True)) == kept
    assert (videos.frames_unique == videos.frames_decoded).all(), "no frame repeats the one before"
    counts = Counter(built.counts)
    assert counts["found"] == counts["ok"] + counts["excluded"] + counts["failed"]


def test_equal_seeds_give_equal_bytes_whatever_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = plan_us4(3)[::150]
    monkeypatch.setattr(us4, "plan_us4", lambda seed: chosen)
    write_us4(tmp_path / "one", seed=3, workers=1)
    write_us4(tmp_path / "two", seed=3, workers=2)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file())
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files)
