"""Publish the tables, make the pictures again elsewhere: equal in every byte; or what is not equal is named and nothing is written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from usdata import manifest
from usdata.building import build
from usdata.errors import DataSetError, UserError
from usdata.manifest import DUPLICATES, EXCLUDED, FRAMES, VIDEOS
from usdata.phantoms import phantom, us4
from usdata.phantoms.us4 import plan_us4, write_us4
from usdata.rebuilding import rebuild
from usdata.validating import validate


def tree(folder: Path) -> dict[str, bytes]:
    """Everything in a data set but the journals of its build."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not {".steps", ".cache"} & set(path.parts)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def published(folder: Path, where: Path) -> Path:
    where.mkdir()
    for name in (*manifest.SCHEMAS, manifest.DATASET_JSON):
        shutil.copy(folder / name, where / name)
    return where


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("rebuild") / "raw", videos=12, seed=1, size=200, frames=24).out


@pytest.fixture(scope="module")
def built(raw: Path) -> Path:
    """Masked, shrunk and painted over: all that decides about a stored pixel."""
    overrides = ["image.crop=mask", "image.max_side=160", "image.overlays=inpaint"]
    return build("phantom", raw=raw, out=raw.parent / "set", workers=2, overrides=overrides).out


def test_from_the_same_files_under_other_names_every_byte_is_the_same(built: Path, raw: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other" / "place"
    elsewhere.mkdir(parents=True)
    for number, path in enumerate(sorted((raw / "clips").iterdir(), reverse=True)):
        shutil.copy(path, elsewhere / f"{number:03}{path.suffix}")
    result = rebuild(published(built, tmp_path / "manifest"), raw=tmp_path / "other", out=tmp_path / "again", workers=2)
    assert result.equal
    assert result.clips == len(result.moved)
    assert tree(tmp_path / "again") == tree(built)


def test_folders_of_images_and_four_layouts_move_too(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(us4, "plan_us4", lambda seed: plan_us4(seed)[::60])
        write_us4(tmp_path / "raw", seed=0, workers=1)
    made = build("us4", raw=tmp_path / "raw", out=tmp_path / "set", workers=2).out
    tables = published(made, tmp_path / "manifest")
    (tmp_path / "raw").rename(tmp_path / "deep")
    (tmp_path / "moved").mkdir()
    (tmp_path / "deep").rename(tmp_path / "moved" / "deep")
    result = rebuild(tables, raw=tmp_path / "moved", out=tmp_path / "again", workers=2)
    assert result.equal, result.faults
    assert tree(tmp_path / "again") == tree(made)


def test_a_changed_and_a_missing_file_are_named_and_nothing_is_written(built: Path, raw: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(raw, tmp_path / "raw"))
    videos = [row for row in pq.read_table(built / VIDEOS).to_pylist() if row["status"] == "ok"]
    changed, missing = videos[0], videos[-1]
    with (copy / changed["path"]).open("ab") as file:
        file.write(b"x")
    (copy / missing["path"]).unlink()
    tables, out = published(built, tmp_path / "manifest"), tmp_path / "again"
    result = rebuild(tables, raw=copy, out=out, workers=2)
    assert set(result.faults) == {changed["video_id"], missing["video_id"]}
    assert "has changed" in result.faults[changed["video_id"]][0]
    assert not out.exists()

    part = rebuild(tables, raw=copy, out=out, workers=2, partial=True)
    assert part.written
    assert part.digest != result.digest
    gone = set(part.faults)
    rows = pq.read_table(out / VIDEOS).to_pylist()
    assert {row["video_id"] for row in rows if (row["reason"] or "").startswith("not rebuilt: ")} == gone
    for name in (FRAMES, EXCLUDED):
        left = [row for row in pq.read_table(built / name).to_pylist() if row["video_id"] not in gone]
        same = [row | {"duplicate_group": None} for row in left] if name == FRAMES else left
        found = pq.read_table(out / name).to_pylist()
        assert [row | {"duplicate_group": None} for row in found] == same if name == FRAMES else found == same
    pairs = pq.read_table(out / DUPLICATES).to_pylist()
    assert not {row[column] for row in pairs for column in ("video_id_a", "video_id_b")} & gone
    assert validate(out, deep=True, workers=2).holds
    assert json.loads((out / "dataset.json").read_text())["rebuilt_from"] == {"digest": result.digest, "left_out": 2}

    whole = rebuild(tables, raw=raw, out=out, workers=2)  # the mended raw files, into the same place
    assert whole.equal
    assert tree(out) == tree(built)


def test_pictures_that_were_lost_come_back_where_they_were(built: Path, raw: Path, tmp_path: Path) -> None:
    standing = Path(shutil.copytree(built, tmp_path / "set"))
    shutil.rmtree(standing / "images")
    assert rebuild(standing, raw=raw, out=standing, workers=2).equal
    assert tree(standing) == tree(built)
    with pytest.raises(UserError, match="holds another data set"):
        rebuild(published(build("phantom", raw=raw, out=tmp_path / "b", workers=2).out, tmp_path / "m"), raw=raw, out=standing)


def test_another_decoders_pixels_are_named_frame_by_frame(built: Path, raw: Path, tmp_path: Path) -> None:
    tables = published(built, tmp_path / "manifest")
    rows = pq.read_table(tables / FRAMES).to_pylist()
    rows[0]["pixel_sha256"] = "0" * 64  # as if it had been decoded otherwise
    lost = rows.pop(1)
    about = json.loads((tables / "dataset.json").read_text())
    manifest.write_table(tables, FRAMES, manifest.table_from_rows(FRAMES, rows), recipe_digest=about["recipe_digest"])
    manifest.write_about(tables, about | {"versions": about["versions"] | {"av": "0.1"}})
    result = rebuild(tables, raw=raw, out=tmp_path / "again", workers=2)
    assert list(result.faults) == [rows[0]["video_id"]]
    more, other = result.faults[rows[0]["video_id"]]
    assert f"frame {lost['frame_index']} here" in more
    assert other.startswith(f"frame {rows[0]['frame_index']} of ")
    assert result.decoders["av"][0] == "0.1"


def test_killed_it_goes_on(built: Path, raw: Path, tmp_path: Path) -> None:
    tables, out = published(built, tmp_path / "manifest"), tmp_path / "again"
    command = [sys.executable, "-m", "usdata", "rebuild", str(tables), "--raw", str(raw), "--out", str(out), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    steps = tmp_path / ".again.building" / ".steps"
    while process.poll() is None and len(list(steps.glob("*.json"))) < 3:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in steps.glob("*.json")} if not out.exists() else {}
    assert done or out.exists()
    if not out.exists():
        assert rebuild(tables, raw=raw, out=out, workers=1).equal
    assert tree(out) == tree(built)


def test_tables_that_were_changed_are_refused(built: Path, raw: Path, tmp_path: Path) -> None:
    tables = published(built, tmp_path / "manifest")
    (tables / FRAMES).write_bytes((built / FRAMES).read_bytes() + b"x")
    with pytest.raises(DataSetError, match="are not those"):
        rebuild(tables, raw=raw, out=tmp_path / "again")
    with pytest.raises(UserError, match="inside the folder of raw clips"):
        rebuild(published(built, tmp_path / "fresh"), raw=raw, out=raw / "set")


def test_a_set_that_lacks_a_whole_fold_keeps_the_others_numbers(built: Path, raw: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(raw, tmp_path / "raw"))
    frames = pq.read_table(built / FRAMES).to_pylist()
    gone = {row["video_id"] for row in frames if row["fold"] == 1}
    for row in pq.read_table(built / VIDEOS).to_pylist():
        if row["video_id"] in gone:
            (copy / row["path"]).unlink()
    part = rebuild(published(built, tmp_path / "manifest"), raw=copy, out=tmp_path / "again", workers=2, partial=True)
    assert set(part.faults) == gone
    left = {row["fold"] for row in pq.read_table(tmp_path / "again" / FRAMES).to_pylist()}
    assert left == {row["fold"] for row in frames} - {1}
    assert validate(tmp_path / "again").holds


def test_sets_of_other_steps_are_named(built: Path, raw: Path, tmp_path: Path) -> None:
    tables = published(built, tmp_path / "manifest")
    about = json.loads((tables / "dataset.json").read_text())
    (tables / "dataset.json").write_text(json.dumps(about | {"step_version": "3"}))
    assert rebuild(tables, raw=raw, out=tmp_path / "again", workers=2).decoders == {"usdata's steps": ("3", about["step_version"])}
