"""A build finds the same scan under another name: one group, one fold, a row with its place, a finding where labels contradict."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.usdata.clips import write_video
from tests.usdata.duplicates.scans import scan
from usdata import building, manifest, overlapping
from usdata.auditing import audit
from usdata.building import build
from usdata.cli import app
from usdata.duplicates import search
from usdata.errors import UserError
from usdata.recipe import Recipe

CLIPS = 6


def recipe(**settings: object) -> Recipe:
    source = {
        "name": "ward",
        "table": "t.csv",
        "columns": {"path": "path", "patient": "patient", "label": "label"},
        "patient_ids": "public",
        "sampling": {"rule": "count", "count": 6},
    }
    return Recipe.model_validate({"name": "ward", "sources": [source], "modes": None, "folds": {"count": 3}} | settings)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients' clips, and two that are taken from the first one's: smaller and darker, and cropped, mirrored and cut short."""
    folder = tmp_path_factory.mktemp("ward")
    for number in range(CLIPS):
        write_video(folder / f"clip_{number}.mp4", list(scan(number)))
    first = scan(0)
    small = np.stack([cv2.resize(picture, (168, 140), interpolation=cv2.INTER_AREA) for picture in first])
    write_video(folder / "z_small.mp4", list((small * 0.8).astype(np.uint8)))
    write_video(folder / "z_part.mp4", list(np.ascontiguousarray(first[6:22, 16:184, 20:220, None][:, :, ::-1, 0])))
    rows = [f"clip_{number}.mp4,p{number},{'sick' if number % 2 else 'well'}" for number in range(CLIPS)]
    rows += ["z_small.mp4,p8,well", "z_part.mp4,p9,sick"]
    (folder / "t.csv").write_text("path,patient,label\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def built(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> manifest.DataSet:
    return manifest.open_dataset(build(recipe(), raw=raw, out=tmp_path_factory.mktemp("sets") / "set").out)


def test_the_pairs_stand_in_the_table_with_their_place(built: manifest.DataSet) -> None:
    rows = built.duplicates.set_index(["video_id_a", "video_id_b"])
    assert set(rows.index) == {
        ("ward/clip_0_mp4", "ward/z_part_mp4"),
        ("ward/clip_0_mp4", "ward/z_small_mp4"),
        ("ward/z_part_mp4", "ward/z_small_mp4"),
    }
    assert set(rows["kind"]) == {"content"}
    small, part = rows.loc[("ward/clip_0_mp4", "ward/z_small_mp4")], rows.loc[("ward/clip_0_mp4", "ward/z_part_mp4")]
    assert (small["scale"], small["scale_y"]) == pytest.approx((0.7, 0.7), rel=0.02)
    assert not small["flip"]
    assert part["flip"]
    assert (part["scale"], part["scale_y"]) == pytest.approx((1, 1), rel=0.02)
    # x in b = 200 - (x in a - 20), y in b = y in a - 16
    assert part["shift_x"] == pytest.approx(220, abs=3)
    assert part["shift_y"] == pytest.approx(-16, abs=3)
    assert abs(part["first_frame_a"] - 6 - part["first_frame_b"]) <= 1
    assert part["last_frame_a"] <= 22
    assert built.about["duplicates"]["pairs"] == 3


def test_they_are_one_group_and_never_in_two_folds(built: manifest.DataSet) -> None:
    groups = built.videos.set_index("path")["group_id"]
    assert groups["clip_0.mp4"] == groups["z_small.mp4"] == groups["z_part.mp4"]
    assert groups.drop("t.csv").nunique() == CLIPS
    folds = built.frames.groupby("group_id")["fold"].nunique()
    assert (folds == 1).all()


def test_contradictory_labels_are_an_error_with_both_names(built: manifest.DataSet) -> None:
    found = {finding.id: finding for finding in audit(built.folder).findings}
    finding = found["conflicting-labels"]
    assert finding.level == "error"
    told = "\n".join(finding.rows)
    assert "ward/clip_0_mp4" in told
    assert "ward/z_part_mp4" in told
    assert "sick" in told
    assert "well" in told
    assert CliRunner().invoke(app, ["audit", str(built.folder), "--fail-on", "conflicting-labels"]).exit_code == 3


def test_the_search_can_be_left_out(raw: Path, tmp_path: Path) -> None:
    without = manifest.open_dataset(build(recipe(duplicates={"content": False}), raw=raw, out=tmp_path / "set").out)
    assert without.duplicates.empty
    assert without.frames["group_id"].nunique() == CLIPS + 2
    assert without.about["duplicates"]["version"] is None


def test_equal_bytes_whatever_the_workers(raw: Path, built: manifest.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "AT_ONCE", 0)
    monkeypatch.setattr(search, "PAIRS_IN_CHUNK", 3)
    again = build(recipe(), raw=raw, out=tmp_path / "set", workers=2)
    assert again.digest == built.digest


def test_an_audit_renews_what_an_older_version_searched(built: manifest.DataSet, raw: Path, tmp_path: Path) -> None:
    shutil.copytree(built.folder, tmp_path / "set")
    old = tmp_path / "set"
    manifest.write_table(
        old, manifest.DUPLICATES, manifest.table_from_rows(manifest.DUPLICATES, []), recipe_digest=built.about["recipe_digest"]
    )
    manifest.write_about(old, dict(built.about) | {"duplicates": {"version": 0, "pairs": 0}})
    found = {finding.id for finding in audit(old).findings}
    assert "conflicting-labels" in found
    assert (old / manifest.DUPLICATES).read_bytes() == (built.folder / manifest.DUPLICATES).read_bytes()
    assert manifest.open_dataset(old).digest == built.digest
    assert manifest.open_dataset(old).about == built.about
    assert build(recipe(), raw=raw, out=old).unchanged
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_one_equal_frame_does_not_undo_a_copy_and_cards_join_nobody(tmp_path: Path) -> None:
    """A card before two copies, equal to the last pixel; and stills of one layout with another name each."""
    folder = tmp_path / "raw"
    card = np.full((1, 200, 240), 40, np.uint8)
    cv2.putText(card[0], "HOSPITAL", (20, 90), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 3)
    write_video(folder / "a.mkv", list(np.concatenate([card, scan(20)])), codec="ffv1")
    write_video(folder / "b.mkv", list(np.concatenate([card, (scan(20) * 0.9).astype(np.uint8)])), codec="ffv1")
    for number in range(16):
        page = card[0].copy()
        cv2.putText(page, f"REPORT {number * 77}", (20, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2)
        cv2.imwrite(str(folder / f"page_{number:02d}.png"), page)
    source = {"name": "ward", "layout": "files", "patient_ids": "public", "sampling": {"rule": "all"}}
    made = Recipe.model_validate({"name": "ward", "sources": [source], "modes": None, "folds": {"count": 0}})
    built = manifest.open_dataset(build(made, raw=folder, out=tmp_path / "set").out)
    groups = built.videos.set_index("path")["group_id"]
    assert groups["a.mkv"] == groups["b.mkv"]
    rows = built.duplicates.set_index(["video_id_a", "video_id_b"])
    assert rows.loc[("ward/a_mkv", "ward/b_mkv"), "kind"] == "content"
    pages = groups[groups.index.str.startswith("page")]
    assert pages.nunique() == 16


def test_an_index_gives_the_same_pairs_and_is_asked_for_where_it_is_missing(
    raw: Path, built: manifest.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed = manifest.open_dataset(build(recipe(duplicates={"index": True}), raw=raw, out=tmp_path / "set").out)
    pairs = [list(zip(each.duplicates["video_id_a"], each.duplicates["video_id_b"], strict=True)) for each in (built, indexed)]
    assert pairs[0] == pairs[1]
    monkeypatch.setattr(building, "is_installed", lambda: False)
    with pytest.raises(UserError, match="needs faiss"):
        build(recipe(duplicates={"index": True}), raw=raw, out=tmp_path / "other")


def test_what_was_compared_is_not_compared_again(
    raw: Path, built: manifest.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels or folds: the pairs are taken over, and every byte is that of a build that compared them. Other clips are compared."""
    compared = []
    search_anew = building.same_scans

    def counted(*words: object, **options: object) -> object:
        compared.append(1)
        return search_anew(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(building, "same_scans", counted)
    monkeypatch.setattr(overlapping, "same_scans", counted)
    shutil.copytree(built.folder, tmp_path / "set")
    again = build(recipe(folds={"count": 2}), raw=raw, out=tmp_path / "set", overwrite=True)
    pairs = overlapping.overlap(again.out).pairs
    assert compared == []
    assert {(pair.a, pair.b) for pair in pairs} == set(built.duplicates[["video_id_a", "video_id_b"]].itertuples(index=False, name=None))

    fresh = build(recipe(folds={"count": 2}), raw=raw, out=tmp_path / "fresh")
    assert len(compared) == 1
    for path in sorted(fresh.out.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.out / path.relative_to(fresh.out)).read_bytes(), path.name

    shutil.copytree(raw, tmp_path / "raw")
    table = (tmp_path / "raw" / "t.csv").read_text()
    (tmp_path / "raw" / "t.csv").write_text(table.replace("clip_5.mp4,p5,sick\n", ""))
    (tmp_path / "raw" / "clip_5.mp4").unlink()
    build(recipe(folds={"count": 2}), raw=tmp_path / "raw", out=tmp_path / "set", overwrite=True)
    assert len(compared) == 2
