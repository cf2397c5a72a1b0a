"""`usdata migrate`: sets that old versions wrote keep every value, get what their pictures tell, and say what nobody knows."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import usdata
from tests.usdata.clips import speckle_frames, write_video
from usdata import manifest
from usdata.building import build
from usdata.errors import DataSetError
from usdata.migrating import migrate
from usdata.migrating.steps import ADDED, CHANGES, STEPS, Stage, to_5
from usdata.migrating.terminal import print_migration
from usdata.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = REPOSITORY / "tests" / "data"
OLD = range(1, manifest.SCHEMA_VERSION)


def old_set(version: int, folder: Path, *, pictures: bool = True) -> Path:
    """A set as the usdata of that time wrote it."""
    shutil.copytree(DATA / f"schema-{version}", folder)
    if pictures:
        shutil.copytree(DATA / "schema-pictures" / "images", folder / "images")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gray(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("version", OLD)
def test_a_set_of_an_old_version_keeps_every_value(version: int, tmp_path: Path) -> None:
    folder = old_set(version, tmp_path / "set")
    before = {name: pq.read_table(folder / name) for name in manifest.SCHEMAS}
    images = {name: data for name, data in tree(folder).items() if name.startswith("images/")}
    result = migrate(folder)
    assert (result.before, result.after, result.written) == (version, manifest.SCHEMA_VERSION, True)
    opened = usdata.load(folder)
    assert opened.digest == result.digest == manifest.tables_digest(folder) != result.digest_before
    for name, schema in manifest.SCHEMAS.items():
        after = manifest.read_table(folder, name)
        assert after.schema.equals(schema, check_metadata=False), name
        assert after.select(before[name].column_names).to_pylist() == before[name].to_pylist(), name
        for column in schema:
            assert column.nullable or after.column(column.name).null_count == 0, column.name
    assert {name: data for name, data in tree(folder).items() if name.startswith("images/")} == images
    assert opened.about["migrated"] == {"from": version, "unknown": result.unknown}
    assert result.unknown  # every step up to version 4 leaves something that only the raw clips tell
    assert usdata.audit(folder).statistics["flow"]["clips"]["kept"] == 3
    broken = {promise.id for promise in usdata.validate(folder, deep=version == 1, workers=1).promises if not promise.holds}
    assert broken == (set() if version < 3 else {"pictures"})  # the fixtures lack masks and key frames, of which 3 and 4 know
    again = migrate(folder)
    assert not again.written
    assert again.digest == result.digest


@pytest.mark.parametrize("version", [1, 2])
def test_what_may_not_be_null_is_measured_on_the_pictures(version: int, tmp_path: Path) -> None:
    folder = old_set(version, tmp_path / "set")
    migrate(folder)
    frames = usdata.load(folder).frames
    for row in frames.itertuples():
        levels = np.sort(gray(folder / row.path).ravel())
        low, high = (levels[np.ceil(share * levels.size).astype(int) - 1] for share in (0.05, 0.95))
        assert row.quality_contrast == float(high) - float(low)
        assert row.quality_saturation == pytest.approx((levels >= 250).mean(), abs=1e-6)


def test_what_nobody_looked_at_is_said_to_be_unknown(tmp_path: Path) -> None:
    migrate(old_set(1, tmp_path / "set"))
    videos = usdata.load(tmp_path / "set").videos
    kept, other = videos[videos["status"] == "ok"], videos[videos["status"] != "ok"]
    assert {tuple(words) for words in kept["overlays"]} == {("unknown",)}
    assert {tuple(words) for words in other["overlays"]} == {()}
    assert all("schema version 1" in notes[0] for notes in videos["notes"])
    assert videos[["packets_sha256", "key_frames_path", "fov_origin", "mode"]].isna().all(axis=None)
    pairs = usdata.load(tmp_path / "set").duplicates
    assert pairs[["kind", "scale", "scale_y"]].to_numpy().tolist() == [["file", 1.0, 1.0]]
    assert manifest.duplicates_version(usdata.load(tmp_path / "set").about) is None


def test_version_1_by_way_of_2_and_at_once_are_one(tmp_path: Path) -> None:
    """Version 2's own table has what version 1 could not know; all else must come out alike."""
    tables = {}
    for version in (1, 2):
        migrate(old_set(version, tmp_path / f"set{version}"))
        tables[version] = usdata.load(tmp_path / f"set{version}").videos.drop(columns=list(ADDED[2][manifest.VIDEOS]))
    assert tables[1].astype(str).equals(tables[2].astype(str))


@pytest.mark.parametrize("version", [1, 2])
def test_a_missing_or_other_picture_refuses_the_step_and_leaves_the_set(version: int, tmp_path: Path) -> None:
    folder = old_set(version, tmp_path / "set", pictures=False)
    before = tree(folder)
    with pytest.raises(DataSetError, match=r"image is missing.*build the set again"):
        migrate(folder)
    assert tree(folder) == before
    shutil.copytree(DATA / "schema-pictures" / "images", folder / "images")
    picture = next(folder.rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:2000])
    before = tree(folder)
    with pytest.raises(DataSetError, match=r"(damaged|no readable image).*build the set again"):
        migrate(folder)
    assert tree(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_published_manifest_of_version_3_needs_no_pictures(tmp_path: Path) -> None:
    folder = old_set(3, tmp_path / "set", pictures=False)
    assert migrate(folder).written
    assert len(usdata.load(folder).frames) == 3


def test_changed_tables_are_not_given_a_new_digest(tmp_path: Path) -> None:
    folder = old_set(3, tmp_path / "set")
    table = pq.read_table(folder / manifest.FRAMES)
    pq.write_table(table.slice(1), folder / manifest.FRAMES)
    with pytest.raises(DataSetError, match="another digest"):
        migrate(folder)
    pq.write_table(table.drop_columns(["label"]), folder / manifest.FRAMES)
    with pytest.raises(DataSetError, match="lacks the columns label of schema version 3"):
        migrate(folder)


def test_opening_says_what_to_do_and_changes_nothing(tmp_path: Path) -> None:
    folder = old_set(2, tmp_path / "set")
    before = tree(folder)
    with pytest.raises(DataSetError, match=r"has schema version 2.*run 'usdata migrate .*set'"):
        usdata.load(folder)
    assert tree(folder) == before
    about = json.loads((folder / manifest.DATASET_JSON).read_text())
    for version, said in (
        (manifest.SCHEMA_VERSION + 1, "made by a newer usdata.*install"),
        ("4", "no schema version"),
        (True, "no schema"),
    ):
        (folder / manifest.DATASET_JSON).write_text(json.dumps(about | {"schema_version": version}))
        for opening in (usdata.load, migrate):
            with pytest.raises(DataSetError, match=said):
                opening(folder)


def test_there_is_a_step_from_every_version() -> None:
    assert set(range(1, manifest.SCHEMA_VERSION)) <= set(STEPS)
    assert set(range(1, manifest.SCHEMA_VERSION + 1)) <= set(CHANGES)


def test_the_columns_that_each_version_added_are_those_of_its_tables() -> None:
    """The fixtures are the oracle: they were written by the usdata of their time."""
    for version in range(2, 5):
        for name in manifest.SCHEMAS:
            old, new = (pq.read_schema(DATA / f"schema-{number}" / name) for number in (version - 1, version))
            assert set(new.names) - set(old.names) == set(ADDED[version].get(name, {})), (version, name)
            assert all(new.field(column).type == kind for column, kind in ADDED[version].get(name, {}).items())


def recipe() -> Recipe:
    source = {"name": "ward", "layout": "files", "sampling": {"rule": "all"}}
    return Recipe.model_validate({"name": "tiny", "sources": [source]})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    for number in range(2):
        write_video(folder / "raw" / f"clip{number}.mkv", speckle_frames(12, seed=number, height=160, width=200), codec="ffv1")
    return build(recipe(), raw=folder / "raw", out=folder / "set", workers=1).out


def as_version_4(folder: Path) -> Path:
    """A set of today as version 4 had it."""
    for name in manifest.SCHEMAS:
        table = manifest.read_table(folder, name)
        table = table.select([column for column in table.column_names if column not in ADDED[5].get(name, {})])
        pq.write_table(table, folder / name)
    about = manifest.read_about(folder) | {"schema_version": 4, "digest": manifest.tables_digest(folder)}
    (folder / manifest.DATASET_JSON).write_text(json.dumps(about))
    return folder


def test_version_4_with_its_pictures_becomes_what_a_build_makes_today(built: Path, tmp_path: Path) -> None:
    folder = as_version_4(Path(shutil.copytree(built, tmp_path / "set")))
    result = migrate(folder)
    assert result.unknown == []
    assert result.computed == ["overlay_sha256 and key_frames_sha256 were made of 2 pictures"]
    for name in manifest.SCHEMAS:
        assert (folder / name).read_bytes() == (built / name).read_bytes(), name
    about = usdata.load(folder).about
    assert about.pop("migrated") == {"from": 4, "unknown": []}
    assert about == usdata.load(built).about


def test_digests_of_key_frames_are_those_of_their_pixels(built: Path, tmp_path: Path) -> None:
    folder = as_version_4(Path(shutil.copytree(built, tmp_path / "set")))
    paths = pq.read_table(folder / manifest.VIDEOS).column("key_frames_path").to_pylist()
    stage = Stage(folder, 4, {}, {manifest.VIDEOS: pq.read_table(folder / manifest.VIDEOS)})
    expected = []
    for path in paths:
        pixels = gray(folder / path)
        expected.append(hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}x1\n".encode() + pixels.tobytes()).hexdigest())
    after = to_5(stage)
    assert after.tables[manifest.VIDEOS].column("key_frames_sha256").to_pylist() == expected
    assert after.unknown == ()
    (folder / paths[0]).unlink()
    (folder / paths[1]).write_bytes(b"no picture")
    after = to_5(stage)
    assert after.tables[manifest.VIDEOS].column("key_frames_sha256").to_pylist() == [None, None]
    assert after.unknown == ("2 pictures are missing or cannot be read: their digests are null",)


def test_the_command_tells_what_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old_set(3, tmp_path / "set")
    (folder / "report.html").write_text("of the old tables")
    command = [sys.executable, "-m", "usdata", "migrate", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["before"], told["after"], told["written"], told["report_gone"]) == (3, manifest.SCHEMA_VERSION, True, True)
    assert not (folder / "report.html").exists()
    print_migration(migrate(old_set(1, tmp_path / "other")))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("not known: packets_sha256" in line for line in lines)
