"""A review: the page shows what waits, its answers come back with who and when, and the set is what a build with them makes."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import usdata
from usdata import manifest
from usdata.errors import UserError
from usdata.phantoms.clips import plan, render
from usdata.phantoms.encoding import write_clip
from usdata.recipe import Recipe
from usdata.reviewing import COLUMNS, read_answers, save_answers, take_answers, write_page


def recipe(**changes: object) -> Recipe:
    source = {"name": "s", "layout": "files", "patient_ids": "public"}
    return Recipe.model_validate({"name": "<b>set</b>", "sources": [source], "field_of_view": {"unsure": "hold"}, **changes})


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Two clips that are sure, and two that wait: nothing moves in them."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, clip in enumerate(plan(videos=2, seed=3, frames=16)):
        write_clip(raw / f"clip_{number}.mp4", render(clip)[0], fps=20)
    for number, clip in enumerate(plan(videos=4, seed=3, frames=16)[2:]):
        write_clip(raw / f"frozen_{number}.mp4", np.repeat(render(clip)[0][:1], 12, axis=0), fps=20)
    usdata.build(recipe(), raw=raw, out=tmp_path / "set", workers=1)
    return tmp_path


def waiting(folder: Path) -> set[str]:
    videos = manifest.open_dataset(folder).videos
    return set(videos.loc[videos["review"] == "needed", "video_id"])


def write_answers(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def geometries(page: Path) -> dict[str, str]:
    """What the page would write into its CSV, read from the page."""
    found = re.findall(r'<article data-id="([^"]*)" data-geometry="([^"]*)"', page.read_text())
    return {html.unescape(video_id): html.unescape(geometry) for video_id, geometry in found}


GOOD = {"video_id": "s/a", "answer": "reject", "reviewer": "AB", "date": "2026-01-31", "geometry": ""}


def test_page_shows_what_waits_and_nothing_of_elsewhere(built: Path) -> None:
    out = built / "page.html"
    written = write_page(built / "set", raw=built / "raw", out=out)
    text, shown = out.read_text(), geometries(out)
    assert set(shown) == waiting(built / "set")
    assert written.clips == len(shown) == 2
    assert text.count("data:image/jpeg;base64,") == 4 * written.clips
    assert "<b>set</b>" not in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert str(built) not in text
    assert all(json.loads(geometry)["kind"] in ("rectangle", "annulus_sector") for geometry in shown.values())
    assert write_page(built / "set", raw=built / "raw", out=out, everything=True).clips == 4


def test_answers_come_back_with_who_and_when(built: Path) -> None:
    folder = built / "set"
    shown = geometries(write_page(folder, raw=built / "raw", out=built / "page.html").page)
    accepted, rejected = sorted(shown)
    images = {path: path.read_bytes() for path in folder.glob("images/s/clip_*/*.png")}
    yes = GOOD | {"video_id": accepted, "answer": "accept", "geometry": shown[accepted]}
    no = GOOD | {"video_id": rejected, "date": "2026-02-01"}
    result, counts = take_answers(folder, write_answers(built / "answers.csv", [yes, no]), raw=built / "raw", workers=1)
    assert counts == {"accept": 1, "reject": 1}
    assert result.reused == 2
    videos = manifest.open_dataset(folder).videos.set_index("video_id")
    told = ["status", "review", "reviewer", "reviewed_on"]
    assert videos.loc[accepted, told].tolist() == ["ok", "accepted", "AB", "2026-01-31"]
    assert videos.loc[accepted, "fov_origin"] == "override"
    assert videos.loc[accepted, "review_reason"].startswith("no field of view: ")
    assert json.loads(videos.loc[accepted, "fov_geometry"]) == json.loads(shown[accepted])
    assert videos.loc[rejected, told].tolist() == ["excluded", "rejected", "AB", "2026-02-01"]
    assert videos.loc[rejected, "reason"] == "rejected in review"
    assert videos.drop([accepted, rejected])["reviewer"].isna().all()
    assert images == {path: path.read_bytes() for path in folder.glob("images/s/clip_*/*.png")}
    assert waiting(folder) == set()
    # Equal input, equal bytes: the answers are in the recipe.
    again = Recipe.model_validate(manifest.open_dataset(folder).about["recipe"])
    usdata.build(again, raw=built / "raw", out=built / "again", workers=2)
    for name in manifest.SCHEMAS:
        assert hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256((built / "again" / name).read_bytes()).digest()


def test_release_takes_a_clip_with_text_once_a_person_has_looked(tmp_path: Path) -> None:
    pictures, _ = render(plan(videos=3, seed=3, frames=16)[2])
    for picture in pictures:
        cv2.putText(picture, "LIVER 12", (150, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (240, 240, 240), 1)
    (tmp_path / "raw").mkdir()
    write_clip(tmp_path / "raw" / "text.mp4", pictures, fps=20)
    usdata.build(recipe(release=True, image={"crop": "mask"}), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    video = manifest.open_dataset(tmp_path / "set").videos.iloc[0]
    assert video["status"] == "excluded"
    assert "text" in video["reason"]
    # A geometry in the recipe does not say that somebody read what is written there.
    given = {"unsure": "hold", "overrides": {video["video_id"]: json.loads(video["fov_geometry"])}}
    usdata.build(recipe(release=True, image={"crop": "mask"}, field_of_view=given), raw=tmp_path / "raw", out=tmp_path / "given", workers=1)
    assert "text" in manifest.open_dataset(tmp_path / "given").videos.iloc[0]["reason"]
    shown = geometries(write_page(tmp_path / "set", raw=tmp_path / "raw", out=tmp_path / "page.html").page)
    yes = GOOD | {"video_id": video["video_id"], "answer": "accept", "geometry": shown[video["video_id"]]}
    take_answers(tmp_path / "set", write_answers(tmp_path / "a.csv", [yes]), raw=tmp_path / "raw", workers=1)
    video = manifest.open_dataset(tmp_path / "set").videos.iloc[0]
    assert (video["status"], video["review"]) == ("ok", "accepted")
    assert "text" in video["review_reason"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "maybe"}, "answer"),
        ({"answer": "accept"}, "needs the geometry"),
        ({"answer": "accept", "geometry": "{"}, "line 2: its geometry is no JSON"),
        ({"answer": "accept", "geometry": "5"}, "line 2: no geometry: 5"),
        ({"answer": "accept", "geometry": '{"kind": "rectangle", "x": NaN, "y": 0, "width": 5, "height": 5}'}, "'x' is no number"),
        ({"answer": "accept", "geometry": '{"kind": "rectangle", "x": 1}'}, "other parameters: x, y, width, height"),
        ({"date": "2999-01-01"}, "has not come yet"),
        ({"reviewer": ""}, "reviewer"),
        ({"date": "yesterday"}, "date"),
        ({"video_id": ""}, "names no clip"),
    ],
)
def test_wrong_answers_are_one_line(tmp_path: Path, row: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        read_answers(write_answers(tmp_path / "a.csv", [GOOD | row]))
    assert "\n" not in str(error.value)


def test_wrong_files_are_told(built: Path) -> None:
    with pytest.raises(UserError, match="line 2 names 's/a', which is no clip"):
        take_answers(built / "set", write_answers(built / "a.csv", [GOOD]), raw=built / "raw")
    with pytest.raises(UserError, match="names a clip twice"):
        read_answers(write_answers(built / "a.csv", [GOOD, GOOD]))
    (built / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="lacks columns"):
        read_answers(built / "b.csv")
    with pytest.raises(UserError, match="lies inside the data set"):
        write_page(built / "set", raw=built / "raw", out=built / "set" / "page.html")
    (built / "other").mkdir()
    write_clip(built / "other" / "x.mp4", np.zeros((3, 32, 32), np.uint8), fps=5)
    with pytest.raises(UserError, match="is not among the clips"):
        write_page(built / "set", raw=built / "other", out=built / "page.html")


def test_answers_survive_another_recipe(built: Path) -> None:
    folder, raw = built / "set", built / "raw"
    with pytest.raises(UserError, match="no answers of a review"):
        save_answers(folder, built / "saved.csv")
    shown = geometries(write_page(folder, raw=raw, out=built / "page.html").page)
    accepted, rejected = sorted(shown)
    yes = GOOD | {"video_id": accepted, "answer": "accept", "geometry": shown[accepted]}
    rows = [yes, GOOD | {"video_id": rejected}]
    # As a spreadsheet saves it.
    text = write_answers(built / "answers.csv", [rows[1] | {"answer": "Reject"}]).read_text().replace(",", ";")
    (built / "half.csv").write_text("\ufeff" + text, encoding="utf-8")
    take_answers(folder, built / "half.csv", raw=raw, workers=1)
    take_answers(folder, write_answers(built / "answers.csv", [yes]), raw=raw, workers=1)
    other = recipe(image={"crop": "box"})
    with pytest.raises(UserError, match="2 answers of a review that would be lost"):
        usdata.build(other, raw=raw, out=folder, overwrite=True)
    assert save_answers(folder, built / "saved.csv") == 2
    assert {row["video_id"] for row in csv.DictReader((built / "saved.csv").read_text().splitlines())} == set(shown)
    usdata.build(other, raw=raw, out=folder, overwrite=True, workers=1, answers=read_answers(built / "saved.csv"))
    videos = manifest.open_dataset(folder).videos.set_index("video_id")
    assert videos.loc[[accepted, rejected], "review"].tolist() == ["accepted", "rejected"]
    assert save_answers(folder, built / "again.csv") == 2
    assert (built / "again.csv").read_bytes() == (built / "saved.csv").read_bytes()


def test_pseudonyms_and_numbers_of_an_answer_are_no_identifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patient called 210 must not stop a geometry with a 210 in it, nor a hash that holds those digits."""
    (tmp_path / "secret").write_text("5" * 64)
    monkeypatch.setenv("USDATA_SECRET_FILE", str(tmp_path / "secret"))
    (tmp_path / "raw").mkdir()
    write_clip(tmp_path / "raw" / "clip.mp4", np.repeat(render(plan(videos=3, seed=3, frames=16)[2])[0][:1], 12, axis=0), fps=20)
    (tmp_path / "raw" / "t.csv").write_text("path,patient\nclip.mp4,210\n")
    source = {"name": "s", "table": "t.csv", "columns": {"path": "path", "patient": "patient"}, "paths": "pseudonym"}
    ward = Recipe.model_validate({"name": "ward", "sources": [source], "field_of_view": {"unsure": "hold"}})
    usdata.build(ward, raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    video_id = manifest.open_dataset(tmp_path / "set").videos["video_id"][0]
    shape = '{"kind": "rectangle", "x": 210, "y": 20, "width": 60, "height": 60}'
    yes = GOOD | {"video_id": video_id, "answer": "accept", "geometry": shape}
    _, counts = take_answers(tmp_path / "set", write_answers(tmp_path / "a.csv", [yes]), raw=tmp_path / "raw", workers=1)
    assert counts["accept"] == 1
    named = write_answers(tmp_path / "b.csv", [yes | {"reviewer": "Dr 210"}])
    with pytest.raises(UserError, match="private id"):
        take_answers(tmp_path / "set", named, raw=tmp_path / "raw", workers=1)


def test_what_is_given_for_no_clip_or_beside_the_picture_is_told(built: Path) -> None:
    far = {"kind": "rectangle", "x": 9000, "y": 9000, "width": 10, "height": 10}
    given = recipe(field_of_view={"unsure": "hold", "overrides": {"s/clip_0_mp4": far, "s/clip_1.mp4": far}})
    result = usdata.build(given, raw=built / "raw", out=built / "far", workers=1)
    assert result.notes[-1:] == ["field_of_view.overrides names 's/clip_1.mp4', which is no clip here; did you mean 's/clip_1_mp4'?"]
    assert (result.waiting, result.held_back) == (3, 3)
    video = manifest.open_dataset(built / "far").videos.set_index("video_id").loc["s/clip_0_mp4"]
    assert video["status"] == "excluded"
    assert "lies outside the picture" in video["review_reason"]


def test_set_without_doubt_says_so(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write_clip(tmp_path / "raw" / "a.mp4", render(plan(videos=1, seed=3, frames=16)[0])[0], fps=20)
    usdata.build(recipe(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    assert pd.isna(manifest.open_dataset(tmp_path / "set").videos["review"][0])
    with pytest.raises(UserError, match="no clip of it waits"):
        write_page(tmp_path / "set", raw=tmp_path / "raw", out=tmp_path / "page.html")
