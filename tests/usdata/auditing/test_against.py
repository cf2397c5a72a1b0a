"""What two sets share, planted: patients, files, frames, contradictory labels; and the same scan under other bytes, built for real."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import usdata
from tests.usdata.auditing.planted import Planted
from tests.usdata.clips import speckle_frames, write_video
from usdata.auditing import AuditResult, audit
from usdata.auditing.finding import Finding
from usdata.errors import UserError


def apart(prefix: str) -> Planted:
    """A planted set that shares nothing with one of another prefix: own source, own digests."""
    planted = Planted()
    for number, row in enumerate(planted.videos):
        row |= {"source": prefix, "video_id": f"{prefix}/v{number:02}", "group_id": row["group_id"].replace("clinic", prefix)}
        row |= {column: f"{prefix}-{column}-{number}" for column in ("sha256", "packets_sha256", "luma_sha256")}
    for table in (planted.frames, planted.excluded):
        for number, row in enumerate(table):
            row |= {"source": prefix, "video_id": row["video_id"].replace("clinic", prefix)}
            if "frame_id" in row:
                row |= {"frame_id": row["frame_id"].replace("clinic", prefix), "pixel_sha256": f"{prefix}-{number}"}
                row["group_id"] = row["group_id"].replace("clinic", prefix)
    return planted


def compared(first: Planted, second: Planted, folder: Path) -> AuditResult:
    first.write(folder / "first", images=False)
    second.write(folder / "second", images=False)
    return audit(folder / "first", against=folder / "second", write_report=False, pictures=False)


def shared(result: AuditResult) -> dict[str, int]:
    return {row["what"]: row["number"] for row in result.statistics["against"]["shared"]}


def of_id(result: AuditResult, name: str) -> Finding | None:
    return next((finding for finding in result.findings if finding.id == name), None)


def test_sets_that_share_nothing_have_no_finding(tmp_path: Path) -> None:
    result = compared(apart("here"), apart("there"), tmp_path)
    assert set(shared(result).values()) == {0}
    assert result.statistics["against"]["pairs"] == []
    assert of_id(result, "leakage-against") is None
    assert of_id(result, "conflicting-labels-against") is None
    assert "against" not in audit(tmp_path / "first", write_report=False, pictures=False).statistics


def test_a_patient_is_shared_under_one_source_alone(tmp_path: Path) -> None:
    first, second = apart("here"), apart("there")
    for table in (second.videos, second.frames):
        for row in table:
            if row["patient_id"] == "p1":
                row["source"] = "here"
    result = compared(first, second, tmp_path)
    finding = of_id(result, "leakage-against")
    assert finding is not None
    assert (finding.level, finding.rows) == ("error", ("patient here/p1: 2 clips here, 2 there",))
    assert shared(result)["patients with one id in both"] == 1


@pytest.mark.parametrize(("column", "kind"), [("sha256", "file"), ("packets_sha256", "packets"), ("luma_sha256", "luma")])
def test_equal_digests_are_pairs_of_their_kind(column: str, kind: str, tmp_path: Path) -> None:
    first, second = apart("here"), apart("there")
    second.videos[4][column] = first.videos[3][column]
    second.videos[5]["label"], second.videos[5][column] = None, first.videos[6][column]
    result = compared(first, second, tmp_path)
    against = result.statistics["against"]
    assert [(pair["a"], pair["b"], pair["kind"], pair["score"]) for pair in against["pairs"]] == [
        ("here/v03", "there/v04", kind, 1.0),
        ("here/v06", "there/v05", kind, 1.0),
    ]
    # v03 is of patient 1 and malignant, v04 of patient 2 and benign; the other pair has one label alone.
    assert [pair["contradict"] for pair in against["pairs"]] == [True, False]
    assert against["pairs"][0]["labels"] == ["malignant", "benign"]
    conflict = of_id(result, "conflicting-labels-against")
    assert conflict is not None
    assert (conflict.level, conflict.rows) == ("error", ("here/v03 = there/v04 (malignant and benign)",))


def test_stills_are_equal_by_their_file_alone(tmp_path: Path) -> None:
    first, second = apart("here"), apart("there")
    for planted in (first, second):
        planted.videos[0] |= {"frames_unique": 1, "luma_sha256": "black", "packets_sha256": "black"}
    assert compared(first, second, tmp_path).statistics["against"]["pairs"] == []


def test_equal_frames_are_counted_and_paired(tmp_path: Path) -> None:
    first, second = apart("here"), apart("there")
    for index in (0, 2):
        second.frames[3 * 7 + index]["pixel_sha256"] = first.frames[3 * 1 + index]["pixel_sha256"]
    result = compared(first, second, tmp_path)
    assert shared(result)["equal stored frames"] == 2
    [pair] = result.statistics["against"]["pairs"]
    assert (pair["a"], pair["b"], pair["kind"], pair["score"]) == ("here/v01", "there/v07", "pixels", pytest.approx(2 / 3))


def test_other_words_for_a_class_do_not_contradict(tmp_path: Path) -> None:
    first, second = apart("here"), apart("there")
    for planted, names in ((first, {"benign": "Benign Tumour"}), (second, {"benign": "benign_tumour", "malignant": "cancer"})):
        for table in (planted.videos, planted.frames):
            for row in table:
                row["label"] = names.get(row["label"], row["label"])
    second.videos[0]["sha256"] = first.videos[0]["sha256"]  # one class, spelt otherwise
    second.videos[2]["sha256"] = first.videos[2]["sha256"]  # malignant and cancer: neither set knows the other's word
    result = compared(first, second, tmp_path)
    assert len(result.statistics["against"]["pairs"]) == 2
    assert of_id(result, "conflicting-labels-against") is None


def test_a_set_is_not_compared_with_itself(tmp_path: Path) -> None:
    Planted().write(tmp_path, images=False)
    with pytest.raises(UserError, match="names the data set itself"):
        audit(tmp_path, against=tmp_path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sets of two clips; one scan stands in both, encoded anew, with another label."""
    folder = tmp_path_factory.mktemp("against")
    frames = [speckle_frames(30, seed=seed, height=96, width=120) for seed in range(3)]
    recipe: dict[str, Any] = {
        "name": "first",
        "sources": [{"name": "a", "layout": "files", "patient_ids": "public", "pattern": "(?P<label>[a-z]+)_"}],
        "folds": {"count": 0},
        "modes": None,
    }
    write_video(folder / "raw_a" / "sick_0.mp4", frames[0])
    write_video(folder / "raw_a" / "well_1.mp4", frames[1])
    write_video(folder / "raw_b" / "well_0.avi", [frame[4:-4, 4:-4].copy() for frame in frames[0]], codec="mpeg4")
    write_video(folder / "raw_b" / "sick_2.mp4", frames[2])
    for letter, name in (("a", "first"), ("b", "second")):
        given = copy.deepcopy(recipe) | {"name": name}
        given["sources"][0]["name"] = letter
        built = usdata.build(usdata.recipe.Recipe.model_validate(given), raw=folder / f"raw_{letter}", out=folder / name, workers=1)
        assert built.counts["ok"] == 2
    return folder / "first", folder / "second"


def test_the_same_scan_under_other_bytes_is_found_by_content(real: tuple[Path, Path]) -> None:
    result = audit(real[0], against=real[1], write_report=False)
    [pair] = result.statistics["against"]["pairs"]
    assert (pair["a"], pair["b"], pair["kind"], pair["contradict"]) == ("a/sick_0_mp4", "b/well_0_avi", "content", True)
    assert shared(result)["pairs of clips that show the same scan under other bytes"] == 1
    assert of_id(result, "leakage-against") is not None
    assert of_id(result, "conflicting-labels-against") is not None
    assert audit(real[0], against=real[1], write_report=False, pictures=False).statistics["against"]["pairs"] == []
