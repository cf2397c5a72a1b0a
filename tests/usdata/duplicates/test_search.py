"""All pairs of a set: one answer in this process, by worker processes, by Ray, and with descriptors on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.usdata.duplicates.scans import key_frames, scan
from usdata.duplicates import bands, search, setting_up
from usdata.duplicates.key_frames import as_strip
from usdata.engines import runner

REPOSITORY = Path(__file__).resolve().parents[3]
CLIPS = 6
BY_ENGINE = """
import json, sys
from pathlib import Path
from usdata.duplicates import search
from usdata.engines import runner
search.AT_ONCE, search.CLIPS_IN_CHUNK, search.PAIRS_IN_CHUNK = 0, 3, 2
folder = Path(sys.argv[2])
clips = search.Clips.of(folder, json.loads((folder / "rows.json").read_text()))
print(json.dumps(list(search.rows_of(search.same_scans(clips, None, runner(sys.argv[1], 2))))))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key frames of clips, and of two copies of the first: cropped and mirrored, and a part of it."""
    place = tmp_path_factory.mktemp("clips")
    first = scan(0)
    pictures = {f"clip-{number}": scan(number) for number in range(CLIPS)}
    pictures |= {"mirrored": np.ascontiguousarray(first[:, 16:184, 20:220][:, :, ::-1]), "part": first[4:20]}
    rows: list[dict[str, Any]] = []
    for name, frames in pictures.items():
        found = key_frames(name, frames)
        cv2.imwrite(str(place / f"{name}.png"), as_strip(found.pictures))
        row = {"video_id": name, "key_frames_path": f"{name}.png", "key_frames": found.frame_index.tolist(), "key_frames_box": found.box}
        rows.append(row)
    rows.append({"video_id": "dark", "key_frames_path": None, "key_frames": None, "key_frames_box": None})
    (place / "rows.json").write_text(json.dumps(rows))
    return place


@pytest.fixture(scope="module")
def clips(folder: Path) -> search.Clips:
    return search.Clips.of(folder, json.loads((folder / "rows.json").read_text()))


@pytest.fixture(scope="module")
def expected(clips: search.Clips) -> list[dict[str, Any]]:
    """In this process, since clips are few."""
    return list(search.rows_of(search.same_scans(clips, None, runner("local", 1))))


def test_the_copies_are_found(expected: list[dict[str, Any]]) -> None:
    pairs = {(row["video_id_a"], row["video_id_b"]): row["flip"] for row in expected}
    assert pairs == {("clip-0", "mirrored"): True, ("clip-0", "part"): False, ("mirrored", "part"): True}


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_engines_agree(folder: Path, expected: list[dict[str, Any]], engine: str) -> None:
    """In a process of its own: Ray leaves threads and sockets behind."""
    command = [sys.executable, "-c", BY_ENGINE, engine, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected


def test_descriptors_on_disk_give_the_same(clips: search.Clips, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bands, search, setting_up):
        monkeypatch.setattr(module, "BAND", 3)
    monkeypatch.setattr("usdata.duplicates.all_pairs.BAND", 3)
    monkeypatch.setattr(search, "CLIPS_IN_CHUNK", 2)
    found = search.same_scans(clips, clips, runner("local", 1))
    assert [match for match in search.rows_of(found) if match["video_id_a"] < match["video_id_b"]] == expected
