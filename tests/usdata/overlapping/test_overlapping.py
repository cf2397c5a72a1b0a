"""`usdata overlap` on real builds: copies under other names, labels and patients; the page; rubbish."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.usdata.clips import write_video
from tests.usdata.duplicates.scans import scan
from usdata import manifest
from usdata.building import build
from usdata.cli import app
from usdata.errors import DataSetError, UserError
from usdata.overlapping import overlap
from usdata.overlapping.sides import Side
from usdata.recipe import Recipe


def tissue(seed: int) -> np.ndarray:
    return scan(seed, 24)


def made(folder: Path, name: str, clips: dict[str, np.ndarray], rows: list[str]) -> Path:
    for clip, pictures in clips.items():
        write_video(folder / name / clip, list(pictures))
    (folder / name / "t.csv").write_text("path,patient,label\n" + "".join(f"{row}\n" for row in rows))
    source = {
        "name": name,
        "table": "t.csv",
        "columns": {"path": "path", "patient": "patient", "label": "label"},
        "patient_ids": "public",
        "sampling": {"rule": "count", "count": 10},
    }
    return build(
        Recipe.model_validate({"name": name, "sources": [source], "modes": None}), raw=folder / name, out=folder / f"{name}_set"
    ).out


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sets: the second holds a brighter, smaller copy of a clip of the first, a mirrored one under another label, and a stranger."""
    folder = tmp_path_factory.mktemp("sets")
    first = made(folder, "first", {f"{seed}.mp4": tissue(seed) for seed in range(3)}, ["0.mp4,p0,sick", "1.mp4,p1,well", "2.mp4,p2,<b>"])
    small = np.stack([cv2.resize(picture, (168, 140), interpolation=cv2.INTER_AREA) for picture in tissue(0)])
    clips = {
        "copy.mp4": np.clip(small * 1.2, 0, 255).astype(np.uint8),
        "mirror.mp4": np.ascontiguousarray(tissue(1)[4:, :, ::-1]),
        "stranger.mp4": tissue(9),
        "dark.mp4": tissue(2) // 8 + 20,
    }
    second = made(folder, "second", clips, ["copy.mp4,p0,sick", "mirror.mp4,q1,sick", "stranger.mp4,q2,well", "dark.mp4,q3,well"])
    return first, second


def test_copies_are_found_and_strangers_are_not(sets: tuple[Path, Path], tmp_path: Path) -> None:
    result = overlap(*sets, page=tmp_path / "page.html")
    assert [(pair.a, pair.b, pair.kind, pair.flip) for pair in result.pairs] == [
        ("first/0_mp4", "second/copy_mp4", "content", False),
        ("first/1_mp4", "second/mirror_mp4", "content", True),
    ]
    assert [pair.b for pair in result.contradictory] == ["second/mirror_mp4"]
    assert [pair.b for pair in result.across_patients] == ["second/mirror_mp4"]
    copy, mirror = result.pairs
    assert copy.scale == pytest.approx((0.7, 0.7), rel=0.02)
    assert mirror.frames_b[0] <= 2
    assert all(abs(frame_a - 4 - frame_b) <= 1 for frame_a, frame_b in mirror.frames)
    assert result.left_out == ["second/dark_mp4"]
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<b>" not in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert overlap(sets[1], sets[0]).pairs[0].b == "first/0_mp4"
    assert overlap(sets[0]).pairs == []


def test_equal_files_and_frames_are_told_as_such(sets: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(sets[0], tmp_path / "again")
    result = overlap(sets[0], tmp_path / "again")
    assert [(pair.a, pair.b, pair.kind) for pair in result.pairs] == [(f"first/{name}_mp4",) * 2 + ("file",) for name in range(3)]
    assert all(frame_a == frame_b for pair in result.pairs for frame_a, frame_b in pair.frames)
    assert all(pair.same_label and pair.same_patient for pair in result.pairs)
    # Their videos.parquet is the same, but this clip's bytes are said to be others: equal stored frames are left.
    folder = tmp_path / "again"
    rows = [row | {"sha256": "0" * 64, "packets_sha256": None, "luma_sha256": None} for row in Side("", folder).videos]
    table = manifest.table_from_rows(manifest.VIDEOS, rows)
    manifest.write_table(folder, manifest.VIDEOS, table, recipe_digest="")
    assert [(pair.kind, pair.score) for pair in overlap(sets[0], folder).pairs] == [("pixels", 1.0)] * 3


def test_a_folder_of_raw_clips_is_read_and_left_alone(sets: tuple[Path, Path], tmp_path: Path) -> None:
    raw = tmp_path / "clips"
    write_video(raw / "deep" / "copy.mp4", list(tissue(1)[3:, 20:190, 30:230]))
    write_video(raw / "other.mp4", list(tissue(11)))
    (raw / "notes.txt").write_text("nothing")
    before = sorted(raw.rglob("*"))
    result = overlap(sets[0], raw)
    assert [(pair.a, pair.kind) for pair in result.pairs] == [("first/1_mp4", "content")]
    assert (result.b, result.clips_b) == ("clips", 2)
    assert sorted(raw.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.mp4").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="no ultrasound"):
        overlap(sets[0], tmp_path / "empty")


def test_the_command_says_so_and_fails_on_request(sets: tuple[Path, Path]) -> None:
    run = CliRunner()
    told = run.invoke(app, ["overlap", *map(str, sets)])
    assert told.exit_code == 0
    assert "2 pairs show the same scan" in told.output
    assert "1 of them under different labels" in told.output
    assert max(map(len, told.output.splitlines())) <= 80
    assert run.invoke(app, ["overlap", *map(str, sets), "--fail"]).exit_code == 3
    assert run.invoke(app, ["overlap", str(sets[0]), "--fail"]).exit_code == 0
    found = json.loads(run.invoke(app, ["overlap", *map(str, sets), "--json"]).stdout)
    assert [pair["same_label"] for pair in found["pairs"]] == [True, False]
    assert len(found["pairs"][0]["frames"]) > 5


def test_an_unknown_patient_or_label_is_not_taken_for_the_same(tmp_path: Path) -> None:
    first = made(tmp_path, "one", {"a.mp4": tissue(1), "b.mp4": tissue(1)[2:]}, ["a.mp4,,well", "b.mp4,,"])
    result = overlap(first)
    (pair,) = result.pairs
    assert (pair.same_label, pair.same_patient) == (None, None)
    assert result.contradictory == []
    assert result.across_patients == [pair]


def test_the_catalogue_knows_and_the_search_says_whether_it_was_so(tmp_path: Path) -> None:
    first = made(tmp_path, "pocus", {"a.mp4": tissue(1)}, ["a.mp4,,"])
    second = made(tmp_path, "us4-butterfly", {"b.mp4": tissue(1)[2:]}, ["b.mp4,,"])
    assert overlap(first).known == []
    (sentence,) = overlap(first, second).known
    assert sentence.startswith("pocus and us4-butterfly: clips of Butterfly's gallery")
    assert sentence.endswith("(1 pair found)")


def test_key_frames_that_are_not_there_are_told(sets: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(sets[0], tmp_path / "set", ignore=shutil.ignore_patterns(".cache"))  # what its build found
    strip = sorted((tmp_path / "set" / "images").rglob("*key_frames.png"))[0]
    strip.unlink()
    with pytest.raises(DataSetError, match="is missing"):
        overlap(tmp_path / "set")


def test_rubbish_is_one_line(sets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no such data set"):
        overlap(sets[0], tmp_path / "none")
    with pytest.raises(UserError, match="no name of an HTML page"):
        overlap(*sets, page=tmp_path / "page.pdf")
    with pytest.raises(UserError, match="lies inside a data set"):
        overlap(*sets, page=sets[1] / "page.html")
