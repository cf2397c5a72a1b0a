"""The build's promises, on small real files: nothing lost, equal bytes however it ran, one bad file costs one row."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import usdata
from tests.usdata.clips import speckle_frames, write_png, write_video
from usdata import manifest
from usdata.building import build, plan
from usdata.building.terminal import print_excluded
from usdata.duplicates.fingerprints import pixel_digest
from usdata.errors import UserError
from usdata.looking import difference_below, frame_difference, is_blank
from usdata.recipe import Expected, Hygiene, Recipe, Source

REPOSITORY = Path(__file__).resolve().parents[2]


def make_recipe(**changes: object) -> Recipe:
    source = {
        "name": "ward",
        "table": "labels.csv",
        "columns": {"path": "path", "patient": "patient", "label": "label"},
        "patient_ids": "public",
        "sampling": {"rule": "all"},
    }
    return Recipe.model_validate({"name": "test", "sources": [Source.model_validate(source)], "folds": {"count": 3}} | changes)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips of five patients, one a copy of another; a truncated one, an empty one, a text, a still, and files that no table names."""
    folder = tmp_path_factory.mktemp("build") / "raw"
    lines = ["path,patient,label"]
    for index in range(6):
        write_video(folder / f"clip{index}.mkv", speckle_frames(6, seed=index), codec="ffv1")
        lines.append(f"clip{index}.mkv,p{index // 2},{'ab'[index % 2]}")
    shutil.copy(folder / "clip0.mkv", folder / "copy.mkv")
    moving = speckle_frames(4, seed=20)
    black = np.zeros_like(moving[0])
    write_video(folder / "faults.mkv", [black, black, moving[0], moving[0], moving[1], moving[1], moving[2]], codec="ffv1")
    whole = write_video(folder / "truncated.mp4", speckle_frames(30, seed=9)).read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.avi").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 20)
    write_png(folder / "still.png", speckle_frames(1, seed=30)[0])
    (folder / "README").write_text("about this folder")
    lines += ["copy.mkv,p9,a", "faults.mkv,p3,b", "truncated.mp4,p3,b", "empty.avi,p4,a", "text.mp4,p4,a", "still.png,p4,a"]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def built(raw: Path) -> manifest.DataSet:
    build(make_recipe(), raw=raw, out=raw.parent / "set", workers=2)
    return manifest.open_dataset(raw.parent / "set")


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every Parquet and image file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.suffix in {".parquet", ".png"}}


def test_every_file_has_one_row_and_the_parts_add_up(raw: Path, built: manifest.DataSet) -> None:
    videos = built.videos.set_index("path")
    assert set(videos.index) == {path.name for path in raw.iterdir()}
    assert videos.status.value_counts().to_dict() == {"ok": 9, "failed": 3, "excluded": 2}
    assert (videos.reason.isna() == (videos.status == "ok")).all()
    assert "empty" in videos.reason["empty.avi"]
    assert not videos.reason.dropna().str.contains(str(raw)).any()
    counts = built.about["counts"]
    assert counts["found"] == counts["ok"] + counts["excluded"] + counts["failed"] == 14


def test_every_decoded_frame_is_kept_or_excluded_once(built: manifest.DataSet) -> None:
    seen = Counter(zip(built.frames.video_id, built.frames.frame_index, strict=True))
    seen.update(zip(built.excluded.video_id, built.excluded.frame_index, strict=True))
    decoded = {(row.video_id, index): 1 for row in built.videos.itertuples() for index in range(row.frames_decoded)}
    assert seen == decoded
    assert (
        built.videos.set_index("video_id").frames_kept.loc[built.frames.video_id.unique()] == built.frames.value_counts("video_id")
    ).all()


def test_blank_and_repeated_frames_are_told_with_what_they_repeat(built: manifest.DataSet) -> None:
    video_id = built.videos.set_index("path").video_id["faults.mkv"]
    excluded = built.excluded[built.excluded.video_id == video_id].set_index("frame_index")
    assert excluded.reason.to_dict() == {0: "blank", 1: "blank", 3: "near_repeat", 5: "near_repeat"}
    assert excluded.duplicate_of[3] == 2
    assert excluded.difference[5] == 0
    assert built.frames[built.frames.video_id == video_id].frame_index.tolist() == [2, 4, 6]
    assert "blank_frames" in built.videos.set_index("video_id")["flags"][video_id]


def test_images_hold_the_decoded_pixels(raw: Path, built: manifest.DataSet) -> None:
    expected = speckle_frames(6, seed=3)
    frames = built.frames[built.frames.video_id == "ward/clip3_mkv"]
    assert len(frames) == 6
    for row, pixels in zip(frames.itertuples(), expected, strict=True):
        stored = cv2.imread(str(built.folder / row.path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored, pixels)
        assert row.pixel_sha256 == pixel_digest(pixels)
        assert row.quality_mean == pytest.approx(pixels.mean(), abs=1e-3)
        assert row.time_s == pytest.approx(row.frame_index / 20, abs=1e-3)


def test_the_copy_joins_its_original_under_another_patient(built: manifest.DataSet) -> None:
    assert built.duplicates[["video_id_a", "video_id_b", "kind"]].to_numpy().tolist() == [["ward/clip0_mkv", "ward/copy_mkv", "file"]]
    groups = built.videos.set_index("video_id").group_id
    assert groups["ward/clip0_mkv"] == groups["ward/copy_mkv"]
    assert built.frames.groupby("group_id").fold.nunique().max() == 1
    assert set(built.frames.fold) == {0, 1, 2}


def test_tables_open_by_the_contract(built: manifest.DataSet) -> None:
    for name, schema in manifest.SCHEMAS.items():
        table = pq.read_table(built.folder / name)
        assert table.schema.names == schema.names
        assert table.schema.metadata[b"usdata.recipe_digest"].decode() == built.about["recipe_digest"]
    frames = pd.read_parquet(built.folder / "frames.parquet")
    assert frames.frame_id.is_unique
    assert frames.path.map(lambda path: (built.folder / path).is_file()).all()
    assert frames.label_index.tolist() == [built.classes.index(label) for label in frames.label]
    order = list(zip(frames.source, frames.video_id, frames.frame_index, strict=True))
    assert order == sorted(order)


def test_equal_bytes_whatever_the_workers_the_place_and_the_age_of_the_files(raw: Path, built: manifest.DataSet, tmp_path: Path) -> None:
    elsewhere = tmp_path / "far" / "away"
    elsewhere.mkdir(parents=True)
    for path in sorted(raw.iterdir(), key=lambda path: path.name[::-1]):
        shutil.copyfile(path, elsewhere / path.name)
    result = build(make_recipe(), raw=elsewhere, out=tmp_path / "set", workers=1)
    assert tree_bytes(tmp_path / "set") == tree_bytes(built.folder)
    assert result.digest == built.digest


def test_built_again_nothing_is_done_and_other_settings_need_overwrite(raw: Path, built: manifest.DataSet, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(built.folder, out)
    before = tree_bytes(out)
    assert build(make_recipe(), raw=raw, out=out, workers=1).unchanged
    other = make_recipe(image={"max_side": 40})
    with pytest.raises(UserError, match="--overwrite"):
        build(other, raw=raw, out=out, workers=1)
    assert tree_bytes(out) == before
    replaced = build(other, raw=raw, out=out, workers=2, overwrite=True)
    assert not replaced.unchanged
    assert set(manifest.open_dataset(out).frames.width) == {40}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_killed_builds_go_on_to_the_same_bytes(raw: Path, built: manifest.DataSet, tmp_path: Path) -> None:
    """SIGKILL when the 1st, 3rd, 6th and 9th clip is journalled; nothing half-made ever stands at OUT."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(make_recipe().model_dump(mode="json")))
    out = tmp_path / "set"
    journal = tmp_path / ".set.building" / ".steps"
    command = [sys.executable, "-m", "usdata", "build", str(recipe), "--raw", str(raw), "--out", str(out), "--workers", "1"]
    for journalled in (1, 3, 6, 9):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
        while not (journal.is_dir() and len([path for path in journal.iterdir() if path.suffix == ".json"]) >= journalled):
            assert process.poll() is None, "the build ended before it could be killed"
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not out.exists()
    subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
    assert tree_bytes(out) == tree_bytes(built.folder)
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "set"}


def test_sigterm_saves_says_how_to_go_on_and_leaves_with_75(raw: Path, built: manifest.DataSet, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(make_recipe().model_dump(mode="json")))
    out = tmp_path / "set"
    command = [sys.executable, "-m", "usdata", "build", str(recipe), "--raw", str(raw), "--out", str(out), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    journal = tmp_path / ".set.building" / ".steps"
    while not (journal.is_dir() and any(path.suffix == ".json" for path in journal.iterdir())):
        assert process.poll() is None
        time.sleep(0.002)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "run the same command again" in said
    assert not out.exists()
    again = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert "clips are done already and taken over" in again.stderr
    assert tree_bytes(out) == tree_bytes(built.folder)


def test_count_and_rate_keep_what_they_say(raw: Path, tmp_path: Path) -> None:
    for rule, expected in [
        ({"rule": "count", "count": 2}, [1, 4]),
        ({"rule": "rate", "hz": 10}, [0, 2, 4]),
        ({"rule": "every", "every": 4}, [0, 4]),
    ]:
        source = make_recipe().sources[0].model_copy(update={"sampling": make_recipe().sources[0].sampling.model_validate(rule)})
        build(make_recipe(sources=[source]), raw=raw, out=tmp_path / "set", workers=2, overwrite=True)
        frames = manifest.open_dataset(tmp_path / "set").frames
        assert frames[frames.video_id == "ward/clip1_mkv"].frame_index.tolist() == expected


def test_frame_difference_is_a_mean_over_lit_pixels() -> None:
    a = np.zeros((10, 10), dtype=np.uint8)
    b = a.copy()
    a[:5], b[:5] = 100, 103
    assert frame_difference(a, b) == 3.0
    assert frame_difference(np.zeros_like(a), np.zeros_like(a)) == 0.0


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3, 8, 40, 255]), st.sampled_from([0, 1, 6, 120]))
def test_quick_judgements_are_the_plain_ones(seed: int, low: int, spread: int) -> None:
    """Blank by every fourth row, and differences by a bound first: the same answers as by the definitions."""
    rng = np.random.default_rng(seed)
    a = np.clip(rng.integers(low, low + spread + 1, (13, 11)), 0, 255).astype(np.uint8)
    a[int(rng.integers(13)) :] = rng.integers(0, 256) if seed % 3 else 0
    b = np.clip(a.astype(int) + rng.integers(-1, 2, a.shape) * (rng.random(a.shape) < rng.random()), 0, 255).astype(np.uint8)
    hygiene = Hygiene()
    assert is_blank(a, hygiene) == (a.mean() < 4 or a.std() < 2)
    difference = frame_difference(a, b)
    assert difference_below(0.5, a, b) == (difference if difference < 0.5 else None)


def test_the_plan_counts_without_reading(raw: Path) -> None:
    planned = plan(make_recipe(), raw=raw)
    assert planned.clips == {"ward": 12}
    assert planned.excluded == {"not ultrasound media (text)": 1, "the table of source 'ward'": 1}


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda raw, out: (raw, raw / "set"), "inside the folder of raw clips"),
        (lambda raw, out: (raw / "missing", out), "no such folder"),
        (lambda raw, out: (raw, out.touch() or out), "is a file"),
        (lambda raw, out: (raw, out.mkdir() or (out / "thesis.tex").touch() or out), "not a data set"),
    ],
)
def test_wrong_places_are_refused_and_left_alone(raw: Path, tmp_path: Path, prepare, said: str) -> None:  # type: ignore[no-untyped-def]
    given, out = prepare(raw, tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=said):
        build(make_recipe(), raw=given, out=out, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_frozen_clip_is_flagged_although_its_codec_drifts(tmp_path: Path) -> None:
    still, moving = speckle_frames(1, seed=1)[0], speckle_frames(30, seed=2)
    # A brightening of 0.12 gray levels a frame over fractions of levels that stay: each frame changes one pixel in eight by one level.
    fractions = still + np.random.default_rng(0).uniform(0, 1, still.shape)
    drifting = [np.asarray(np.clip(np.floor(fractions + 0.12 * k), 0, 255), dtype=np.uint8) for k in range(30)]
    write_video(tmp_path / "raw" / "frozen.mkv", drifting, codec="ffv1")
    write_video(tmp_path / "raw" / "moving.mkv", moving, codec="ffv1")
    write_video(tmp_path / "raw" / "doubled.mkv", [frame for frame in moving[:15] for _ in range(2)], codec="ffv1")
    source = Source.model_validate({"name": "s", "layout": "files", "sampling": {"rule": "all"}})
    usdata.build(Recipe(name="t", sources=[source]), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    flags = manifest.open_dataset(tmp_path / "set").videos.set_index("path")["flags"].map(list).to_dict()
    assert "frozen" in flags["frozen.mkv"]
    assert flags["moving.mkv"] == []
    assert flags["doubled.mkv"] == ["near_repeats", "upconverted"]


def one_clip(folder: Path, name: str = "clip.mkv", seed: int = 1) -> Path:
    write_video(folder / name, speckle_frames(6, seed=seed), codec="ffv1")
    return folder


def files_recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({"name": "t", "sources": [{"name": "s", "layout": "files", "sampling": {"rule": "all"}}]} | changes)


def test_overwrite_never_removes_what_was_not_made_here(tmp_path: Path) -> None:
    usdata.build(files_recipe(), raw=one_clip(tmp_path / "raw"), out=tmp_path / "set", workers=1)
    one_clip(tmp_path / "set" / "raw2", seed=2)
    with pytest.raises(UserError, match="holds the folder of raw clips"):
        usdata.build(files_recipe(), raw=tmp_path / "set" / "raw2", out=tmp_path / "set", overwrite=True)
    with pytest.raises(UserError, match="'raw2' beside its data set"):
        usdata.build(files_recipe(folds={"count": 2}), raw=tmp_path / "raw", out=tmp_path / "set", overwrite=True)
    assert (tmp_path / "set" / "raw2" / "clip.mkv").is_file()


def test_a_damaged_set_is_told_and_rebuilt(tmp_path: Path) -> None:
    out = tmp_path / "set"
    usdata.build(files_recipe(), raw=one_clip(tmp_path / "raw"), out=out, workers=1)
    before = tree_bytes(out)
    shutil.rmtree(out / "images")
    with pytest.raises(UserError, match=r"missing or changed.*--overwrite"):
        usdata.build(files_recipe(), raw=tmp_path / "raw", out=out, workers=1)
    assert not usdata.build(files_recipe(), raw=tmp_path / "raw", out=out, workers=1, overwrite=True).unchanged
    assert tree_bytes(out) == before
    others = sorted(path.name for path in out.iterdir() if not path.name.endswith(".parquet"))
    assert others == [".cache", ".steps", "dataset.json", "images"]


def test_two_builds_of_one_set_do_not_meet(tmp_path: Path) -> None:
    raw = one_clip(tmp_path / "raw")
    staging = tmp_path / ".set.building"
    staging.mkdir()
    handle = os.open(staging, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another build"):
        usdata.build(files_recipe(), raw=raw, out=tmp_path / "set", workers=1)
    os.close(handle)
    usdata.build(files_recipe(), raw=raw, out=tmp_path / "set", workers=1)


def test_images_torn_by_a_power_cut_are_made_again(
    raw: Path, built: manifest.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the reading, with one staged image emptied and one cut, as a file system may leave them."""
    out = tmp_path / "set"

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("usdata.building.write_tables", stop)
        with pytest.raises(KeyboardInterrupt):
            build(make_recipe(), raw=raw, out=out, workers=2)
    first, second, *_ = sorted((tmp_path / ".set.building" / "images").rglob("*.png"))
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:50])
    resumed = build(make_recipe(), raw=raw, out=out, workers=2)
    assert resumed.reused == 11  # of twelve clips read before
    assert tree_bytes(out) == tree_bytes(built.folder)


def test_a_shared_title_card_joins_no_patients_but_half_a_clip_does(tmp_path: Path) -> None:
    card = speckle_frames(1, seed=99)[0]
    lines = ["path,patient,label"]
    for index in range(6):
        write_video(tmp_path / "raw" / f"{index}.mkv", [card, *speckle_frames(6, seed=index)], codec="ffv1")
        lines.append(f"{index}.mkv,p{index},a")
    write_video(tmp_path / "raw" / "again.mkv", speckle_frames(6, seed=0)[1:], codec="ffv1")
    lines.append("again.mkv,p9,a")
    (tmp_path / "raw" / "labels.csv").write_text("\n".join(lines) + "\n")
    result = build(make_recipe(folds={"count": 6}), raw=tmp_path / "raw", out=tmp_path / "set", workers=2)
    videos = manifest.open_dataset(tmp_path / "set").videos
    groups = videos[videos.status == "ok"].set_index("path").group_id
    assert groups.nunique() == 6
    assert groups["0.mkv"] == groups["again.mkv"]
    # Folds follow the groups, as the recipe asks, and it is said that they share the card.
    assert "6 groups share frames and leave 1 independent, too few for 6 folds" in result.notes[0]
    few = build(make_recipe(folds={"count": 9}), raw=tmp_path / "raw", out=tmp_path / "few", workers=2)
    assert few.notes == ["no folds were made: 6 groups are too few for 9"]


def test_a_script_without_a_guard_is_told_so_and_makes_no_set(tmp_path: Path) -> None:
    one_clip(tmp_path / "raw")
    (tmp_path / "recipe.yaml").write_text("name: t\nsources: [{name: s, layout: files}]\n")
    script = tmp_path / "script.py"
    script.write_text("import usdata\nusdata.build('recipe.yaml', raw='raw', out='set', workers=1)\n")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run([sys.executable, script.name], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert ran.returncode != 0
    assert "__main__" in ran.stderr.splitlines()[-1]
    assert not (tmp_path / "set").exists()
    script.write_text("import usdata\nif __name__ == '__main__':\n    usdata.build('recipe.yaml', raw='raw', out='set', workers=1)\n")
    subprocess.run([sys.executable, script.name], check=True, capture_output=True, cwd=tmp_path, env=environment, timeout=120)
    assert manifest.open_dataset(tmp_path / "set").about["counts"]["ok"] == 1


def test_a_relative_and_a_plain_out_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_clip(tmp_path / "raw")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    usdata.build(files_recipe(), raw="../raw", out=".", workers=1)
    assert manifest.open_dataset(tmp_path / "here").about["counts"]["ok"] == 1


def test_orphaned_workers_end_with_their_build(raw: Path, tmp_path: Path) -> None:
    """Only the parent is killed; its workers must not write beside the build that goes on."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(make_recipe().model_dump(mode="json")))
    command = [sys.executable, "-m", "usdata", "build", str(recipe), "--raw", str(raw), "--out", str(tmp_path / "set"), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    journal = tmp_path / ".set.building" / ".steps"
    while not (journal.is_dir() and any(journal.iterdir())):
        assert process.poll() is None
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_numbers_other_than_expected_are_told_and_not_forced(raw: Path, tmp_path: Path) -> None:
    whole = build(make_recipe(), raw=raw, out=tmp_path / "a")
    expected = {"videos": whole.counts["ok"], "frames": whole.counts["frames"] + 7}
    source = make_recipe().sources[0].model_copy(update={"expected": Expected.model_validate(expected)})
    other = build(make_recipe(sources=[source]), raw=raw, out=tmp_path / "b")
    assert other.counts == whole.counts
    frames = whole.counts["frames"]
    assert other.notes == [f"source 'ward' gives {frames:,} of {frames + 7:,} frames of a whole copy", *whole.notes]


def test_a_table_may_name_members_of_archives_pairs_and_sequences(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    frames = speckle_frames(6, seed=1)
    for name in ("a", "b", "c"):
        write_video(folder / "loose" / f"{name}.mkv", speckle_frames(5, seed=ord(name)), codec="ffv1")
    with zipfile.ZipFile(folder / "several.zip", "w") as archive:
        archive.write(folder / "loose" / "a.mkv", "deep/a.mkv")
        archive.write(folder / "loose" / "b.mkv", "b.mkv")
    with zipfile.ZipFile(folder / "one.zip", "w") as archive:
        archive.write(folder / "loose" / "c.mkv", "c.mkv")
        archive.writestr("readme.txt", "what this is\n" * 4)
    shutil.rmtree(folder / "loose")
    for number, pixels in enumerate(frames):
        write_png(folder / "scan" / f"left_{number:02}.png", pixels)
    head = "ObjectType = Image\nNDims = 3\nDimSize = 80 64 6\nElementType = MET_UCHAR\nElementDataFile = pixels.raw\n"
    (folder / "pair.mhd").write_text(head)
    (folder / "pixels.raw").write_bytes(np.stack(frames).tobytes())
    paths = ["several.zip/deep/a.mkv", "one.zip", "scan/left_#.png", "pair.mhd", "several.zip/none.mkv"]
    (folder / "labels.csv").write_text("path,patient,label\n" + "".join(f"{path},p{n},a\n" for n, path in enumerate(paths)))
    built = build(make_recipe(), raw=folder, out=tmp_path / "set")
    rows = manifest.open_dataset(tmp_path / "set").videos.set_index("path")
    assert rows.loc["several.zip/deep/a.mkv", "frames_kept"] == 5
    assert rows.loc["one.zip/c.mkv", "frames_kept"] == 5
    assert rows.loc["scan/left_#.png", "frames_kept"] == rows.loc["pair.mhd", "frames_kept"] == 6
    assert rows.loc["several.zip/b.mkv", "reason"] == "no source of the recipe names it"
    assert rows.loc["one.zip/readme.txt", "status"] == "excluded"
    assert rows.loc["several.zip/none.mkv", "status"] == "failed"
    assert "pixels.raw" not in rows.index  # a part of the pair
    assert built.counts["found"] == len(rows) == 8
    # The same pixels came as images and as a stack, under two patients: one scan.
    assert rows.loc["scan/left_#.png", "group_id"] == rows.loc["pair.mhd", "group_id"]


def test_what_was_left_out_is_told_by_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One clip in colour that is lost without a word may be one of five sick patients."""
    excluded = [
        ("a.mp4", "is colour doppler"),
        *((f"{n}.jpg", "a still") for n in range(5)),
        *((f"x{n}", f"reason {n}") for n in range(12)),
    ]
    print_excluded(excluded)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  left out: 5 (a still): 0.jpg, 1.jpg, 2.jpg, ..."
    assert lines[1] == "  left out: 1 (is colour doppler): a.mp4"
    assert lines[-1] == "  and for 4 more reasons: see reason in videos.parquet"
    assert len(lines) == 11
