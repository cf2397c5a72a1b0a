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
from usdata.building import build
from usdata.cli import app
from usdata.errors import DataSetError, UserError
from usdata.overlapping import overlap
from usdata.recipe import Recipe


def tissue(seed: int, frames: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((280, 320)).astype(np.float32), (0, 0), 2.0)
    noise = np.clip((noise - noise.mean()) / noise.std() * 30 + 80, 0, 255).astype(np.uint8)
    return np.stack([noise[place : place + 200, 2 * place : 2 * place + 240] for place in range(frames)])


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
    assert [(match.a, match.b, match.flip) for match in result.matches] == [
        ("first/0_mp4", "second/copy_mp4", False),
        ("first/1_mp4", "second/mirror_mp4", True),
    ]
    assert [match.b for match in result.contradictory] == ["second/mirror_mp4"]
    assert [match.b for match in result.across_patients] == ["second/mirror_mp4"]
    assert result.left_out == ["second/dark_mp4"]
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<b>" not in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert overlap(sets[1], sets[0]).matches[0].b == "first/0_mp4"
    assert overlap(sets[0]).matches == []


def test_the_command_says_so_and_fails_on_request(sets: tuple[Path, Path]) -> None:
    run = CliRunner()
    told = run.invoke(app, ["overlap", *map(str, sets)])
    assert told.exit_code == 0
    assert "2 pairs show the same scan" in told.output
    assert "1 of them under different labels" in told.output
    assert max(map(len, told.output.splitlines())) <= 100
    assert run.invoke(app, ["overlap", *map(str, sets), "--fail"]).exit_code == 3
    assert run.invoke(app, ["overlap", str(sets[0]), "--fail"]).exit_code == 0
    found = json.loads(run.invoke(app, ["overlap", *map(str, sets), "--json"]).stdout)
    assert [match["same_label"] for match in found["matches"]] == [True, False]


def test_an_unknown_patient_or_label_is_not_taken_for_the_same(tmp_path: Path) -> None:
    first = made(tmp_path, "one", {"a.mp4": tissue(1), "b.mp4": tissue(1)[2:]}, ["a.mp4,,well", "b.mp4,,"])
    result = overlap(first)
    (match,) = result.matches
    assert (result.same_label(match), result.same_patient(match)) == (None, None)
    assert result.contradictory == []
    assert result.across_patients == [match]


def test_half_an_image_is_refused(sets: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(sets[0], tmp_path / "set")
    image = sorted((tmp_path / "set" / "images").rglob("*.png"))[0]
    image.write_bytes(image.read_bytes()[:2000])
    with pytest.raises(DataSetError, match="not the one that was written"):
        overlap(tmp_path / "set")


def test_rubbish_is_one_line(sets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no such data set"):
        overlap(sets[0], tmp_path / "none")
    with pytest.raises(UserError, match="no name of an HTML page"):
        overlap(*sets, page=tmp_path / "page.pdf")
    with pytest.raises(UserError, match="lies inside a data set"):
        overlap(*sets, page=sets[1] / "page.html")
