"""Every promise of the contract, broken on purpose: the one that is broken is named with its row, and no other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from usdata import manifest
from usdata.building import build
from usdata.errors import DataSetError
from usdata.manifest import DUPLICATES, EXCLUDED, FRAMES, VIDEOS
from usdata.phantoms import phantom
from usdata.validating import validate

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("validate") / "raw", videos=10, seed=3, size=160, frames=24).out


@pytest.fixture(scope="module")
def built(raw: Path) -> Path:
    return build("phantom", raw=raw, out=raw.parent / "set", workers=2).out


@pytest.fixture
def standing(built: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(built, tmp_path / "set"))


def spoil(folder: Path, name: str, change: Callable[[Rows], Rows | None]) -> None:
    """Change rows of a table behind the contract's back: order and values stay as they are given; dataset.json knows of the new bytes."""
    rows = pq.read_table(folder / name).to_pylist()
    changed = change(rows)
    schema = pa.schema([field.with_nullable(True) for field in manifest.SCHEMAS[name]])
    table = pa.Table.from_pylist(rows if changed is None else changed, schema=schema)
    manifest.write_table(folder, name, table, recipe_digest=about(folder)["recipe_digest"])
    manifest.write_about(folder, about(folder))


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "dataset.json").read_text())


def broken(folder: Path, **how: Any) -> dict[str, tuple[str, ...]]:
    return {promise.id: promise.broken for promise in validate(folder, workers=1, **how).promises if promise.broken}


def test_a_built_set_keeps_every_promise(built: Path, raw: Path) -> None:
    result = validate(built, deep=True, raw=raw, workers=2)
    assert result.holds
    assert len(result.promises) == 13
    looked = {promise.id: promise.checked for promise in result.promises}
    frames, videos = pq.read_table(built / FRAMES).num_rows, pq.read_table(built / VIDEOS).to_pylist()
    beside = sum((row["overlay_path"] is not None) + (row["key_frames_path"] is not None) for row in videos)
    assert looked["pixels"] == looked["pictures"] == looked["paths"] == frames + beside
    assert looked["raw-pixels"] == looked["copies"] == frames
    assert looked["counts"] == len(videos)


def first(rows: Rows, **changes: Any) -> None:
    rows[0] |= changes


CASES: list[tuple[str, str, Callable[[Rows], Rows | None], set[str]]] = [
    ("two rows exchanged", FRAMES, lambda rows: [rows[1], rows[0], *rows[2:]], {"order"}),
    ("a row twice", EXCLUDED, lambda rows: [rows[0], *rows], {"order", "counts"}),
    ("a word nobody knows", FRAMES, lambda rows: first(rows, split="trian"), {"values", "parts"}),
    ("a digest that is none", FRAMES, lambda rows: first(rows, pixel_sha256="ABC"), {"values"}),
    ("a null", FRAMES, lambda rows: first(rows, fingerprint=None), {"values"}),
    ("out of range", FRAMES, lambda rows: first(rows, quality_mean=256.0), {"values"}),
    ("another clip's name", FRAMES, lambda rows: first(rows, frame_id="phantom/other/0"), {"references"}),
    ("another patient", FRAMES, lambda rows: first(rows, patient_id="P999"), {"copies"}),
    ("another label's index", FRAMES, lambda rows: first(rows, label_index=17), {"copies"}),
    ("a frame lost", EXCLUDED, lambda rows: rows[1:], {"counts"}),
    ("a path to elsewhere", FRAMES, lambda rows: first(rows, path="../elsewhere.png"), {"paths", "pictures"}),
    ("another clip's picture", FRAMES, lambda rows: first(rows, path=rows[1]["path"]), {"paths", "pictures"}),
    ("a pair with itself", DUPLICATES, lambda rows: [rows[0] | {"video_id_b": rows[0]["video_id_a"]}, *rows[1:]], {"references"}),
]


@pytest.mark.parametrize(("what", "name", "change", "expected"), CASES, ids=[case[0] for case in CASES])
def test_what_is_spoilt_is_named(standing: Path, what: str, name: str, change: Callable[[Rows], Rows | None], expected: set[str]) -> None:
    spoil(standing, name, change)
    assert set(broken(standing)) == expected


def test_a_split_frame_by_frame_names_patients_groups_and_clips(standing: Path) -> None:
    def alternate(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row["split"] = ("train", "test")[number % 2]

    spoil(standing, FRAMES, alternate)
    rows = broken(standing)["parts"]
    frames = pq.read_table(standing / FRAMES).to_pylist()
    parts: dict[str, set[str]] = {}
    for row in frames:
        parts.setdefault(row["video_id"], set()).add(row["split"])
    torn = {video for video, places in parts.items() if len(places) > 1}
    assert torn == {row.split(": ")[1].split(" (")[0] for row in rows if row.startswith("videos: ")}
    assert any(row.startswith("patients: ") for row in rows)


def test_bytes_of_another_table_are_told_by_the_digest(standing: Path) -> None:
    before = about(standing)
    spoil(standing, FRAMES, lambda rows: first(rows, quality_std=1.0))
    (standing / "dataset.json").write_text(json.dumps(before))
    assert set(broken(standing)) == {"digest"}


def test_columns_types_and_metadata(standing: Path) -> None:
    table = pq.read_table(standing / VIDEOS)
    place = table.schema.get_field_index("bytes")
    other = table.set_column(place, "bytes", table.column("bytes").cast(pa.int32())).append_column("extra", pa.nulls(table.num_rows))
    pq.write_table(other, standing / VIDEOS, compression="snappy", store_schema=True)
    manifest.write_about(standing, about(standing))
    rows = broken(standing)["columns"]
    assert [row for row in rows if "'extra'" in row]
    assert [row for row in rows if "'bytes' is int32, not int64" in row]
    assert [row for row in rows if "zstd" in row]


def test_pictures_that_are_missing_strange_or_changed(standing: Path) -> None:
    frames = pq.read_table(standing / FRAMES).to_pylist()
    gone, changed, half = (frames[place]["path"] for place in (0, 5, 9))
    (standing / gone).unlink()
    stray = f"{Path(gone).parent}/stray.png"
    (standing / stray).write_bytes(b"x")
    assert broken(standing) == {"pictures": (f"{gone}: is missing", f"{stray}: no row names it")}
    pixels = cv2.imread(str(standing / changed), cv2.IMREAD_UNCHANGED)
    pixels[3, 4] ^= 1  # one pixel, one bit
    cv2.imwrite(str(standing / changed), pixels)
    (standing / half).write_bytes((standing / half).read_bytes()[:100])
    key_frames = next(row["key_frames_path"] for row in pq.read_table(standing / VIDEOS).to_pylist() if row["key_frames_path"])
    strip = cv2.imread(str(standing / key_frames), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(standing / key_frames), np.full_like(strip, 7))
    told = set(broken(standing, deep=True)["pixels"])
    other = "is damaged or another image: its pixels are not those of the manifest"
    missing, unreadable = f"{gone}: this image is missing", f"{half}: is no readable image"
    assert told == {missing, f"{changed}: {other}", unreadable, f"{key_frames}: {other}"}


def test_a_manifest_without_pictures_is_valid_and_says_what_was_not_seen(built: Path, tmp_path: Path) -> None:
    for name in (*manifest.SCHEMAS, manifest.DATASET_JSON):
        shutil.copy(built / name, tmp_path / name)
    result = validate(tmp_path, deep=True)
    assert result.holds
    assert [promise.id for promise in result.promises if promise.unseen] == ["pictures"]


def test_raw_files_that_changed_or_went(built: Path, raw: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(raw, tmp_path / "raw"))
    videos = [row for row in pq.read_table(built / VIDEOS).to_pylist() if row["status"] == "ok"]
    with (moved / videos[0]["path"]).open("ab") as file:
        file.write(b"\0")
    (moved / videos[1]["path"]).unlink()
    rows = broken(built, raw=moved, deep=True)["raw-files"]
    assert [row.split(": ")[0] for row in rows] == [videos[0]["video_id"], videos[1]["video_id"]]
    assert "has changed" in rows[0]
    assert "is missing" in rows[1]


@pytest.mark.parametrize(
    "broken_key", [{"counts": None}, {"duplicates": None}, {"classes": [1, 2]}, {"classes": None}, {"recipe": "x"}, {"privacy": 3}]
)
def test_a_description_of_other_kinds_is_one_line(standing: Path, broken_key: dict[str, Any]) -> None:
    (standing / "dataset.json").write_text(json.dumps(about(standing) | broken_key))
    with pytest.raises(DataSetError, match=r"dataset\.json: "):
        validate(standing)


@pytest.mark.parametrize("column", ["path", "video_id", "frame_id"])
def test_nulls_in_keys_are_told_and_nothing_further_is_asked(standing: Path, column: str) -> None:
    spoil(standing, FRAMES, lambda rows: first(rows, **{column: None}))
    assert "values" in broken(standing, deep=True)
