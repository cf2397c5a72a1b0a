"""The build's promises under force: random kills, other workers, orders, places, engines and recipes, full and read-only disks."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import usdata
from tests.usdata.clips import speckle_frames, write_png, write_video
from usdata import manifest
from usdata.building import build, staging
from usdata.errors import UserError
from usdata.phantoms import us4
from usdata.phantoms.us4 import plan_us4, write_us4
from usdata.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Everything in a data set, hidden files too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the US-4 phantom: four layouts, folders of images among them; and what is no clip."""
    folder = tmp_path_factory.mktemp("promises") / "tree"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(us4, "plan_us4", lambda seed: plan_us4(seed)[::42])
        write_us4(folder, seed=0, workers=1)
    (folder / "us4-liver-fibrosis" / "F0_-broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and nothing more")
    return folder


@pytest.fixture(scope="module")
def built(raw: Path) -> Path:
    return build("us4", raw=raw, out=raw.parent / "set", workers=2).out


def command(raw: Path, out: Path, *further: str) -> list[str]:
    return [sys.executable, "-m", "usdata", "build", "us4", "--raw", str(raw), "--out", str(out), *further]


@pytest.mark.parametrize("kills", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_in_the_same_bytes(raw: Path, built: Path, tmp_path: Path, kills: int) -> None:
    """SIGKILL to the whole family of processes; a build that ends before its kill is compared, removed and begun anew."""
    draw = random.Random(20261124)
    out, finished, killed = tmp_path / "set", 0, 0
    expected = tree_bytes(built)
    while killed < kills or not finished:
        process = subprocess.Popen(
            command(raw, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY, start_new_session=True
        )
        try:
            assert process.wait(timeout=None if killed >= kills else 0.3 + 1.5 * draw.random()) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            assert not (out.exists() and not (out / "dataset.json").is_file()), "half a data set stands"
            continue
        finished += 1
        assert tree_bytes(out) == expected
        assert [path.name for path in tmp_path.iterdir()] == ["set"]
        shutil.rmtree(out)


def test_equal_bytes_with_one_worker_in_another_place_and_shuffled_directories(raw: Path, built: Path, tmp_path: Path) -> None:
    """On a file system in memory, where there is one: there a folder is listed in the order in which its files came."""
    memory = Path("/dev/shm")
    place = memory / f"usdata-test-{os.getpid()}" if os.access(memory, os.W_OK) else tmp_path / "place"
    files = sorted(path.relative_to(raw) for path in raw.rglob("*") if path.is_file())
    random.Random(1).shuffle(files)
    try:
        for path in files:
            (place / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(raw / path, place / "raw" / path)
        listed = [next(Path(folder).iterdir()) for folder, _, names in os.walk(place / "raw") if len(names) > 5]
        originals = [next((raw / path.relative_to(place / "raw").parent).iterdir()) for path in listed]
        assert not memory.is_dir() or [path.name for path in listed] != [path.name for path in originals], "the order is another one"
        other = build("us4", raw=place / "raw", out=tmp_path / "deep" / "er" / "set", workers=1)
    finally:
        shutil.rmtree(place)
    assert tree_bytes(other.out) == tree_bytes(built)


@pytest.mark.slow
def test_equal_bytes_by_ray(raw: Path, built: Path, tmp_path: Path) -> None:
    """In a process of its own: Ray leaves threads and sockets behind."""
    result = subprocess.run(
        command(raw, tmp_path / "set", "--engine", "ray", "--workers", "2"), capture_output=True, text=True, cwd=REPOSITORY
    )
    assert result.returncode == 0, result.stderr
    assert tree_bytes(tmp_path / "set") == tree_bytes(built)


def on_a_disk(options: str, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell script with a small file system of its own mounted at `folder`, seen by it alone."""
    folder.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o {options} tmpfs {folder}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode != 0:
        pytest.skip("this system lets nobody mount a file system in a name space of his own")
    return subprocess.run(
        ["unshare", "-rm", "bash", "-ec", f"{mount}\n{script}"], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )


def test_a_full_disk_is_told_the_old_set_stands_and_with_space_it_goes_on(raw: Path, built: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    usdata_build = " ".join(command(raw, disk / "set"))
    digest = f"find {disk}/set -type f | sort | xargs sha256sum | sha256sum"
    script = f"""
        {usdata_build} --workers 1 --set folds.count=2 --set image.max_side=16 >&2     # a small one fits
        before=$({digest})
        mount -o remount,size=$(( $(df --output=used -k {disk} | tail -1) + 2000 ))k {disk}
        {usdata_build} --overwrite && exit 90
        test $? = 2 || exit 91
        test "$before" = "$({digest})" || exit 92
        mount -o remount,size=200m {disk}
        {usdata_build} --overwrite --workers 1
        cp -r {disk}/set {tmp_path}/copy
    """
    result = on_a_disk("size=200m", script, disk)
    assert result.returncode == 0, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert f"error: {disk}/set: no space is left for it (No space left on device); free some space and run the same command" in errors[0]
    assert "clips are done already and taken over" in result.stderr
    assert tree_bytes(tmp_path / "copy") == tree_bytes(built)


def test_a_read_only_target_is_told_and_left_alone(raw: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    build_there = " ".join(command(raw, disk / "set"))
    script = f"mount -o remount,ro {disk}\n{build_there} || exit $?"
    result = on_a_disk("size=20m", script, disk)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines() == [
        f"error: {disk}/set: cannot be written (Read-only file system); give another --out, or mend the permissions"
    ]


def test_a_set_that_was_about_to_be_replaced_comes_back(raw: Path, built: Path, tmp_path: Path) -> None:
    """Killed between the two renames, the next build of the same finds the old set again and has nothing to do."""
    shutil.copytree(built, tmp_path / ".set.replaced")
    again = build("us4", raw=raw, out=tmp_path / "set", workers=1)
    assert again.unchanged
    assert tree_bytes(again.out) == tree_bytes(built)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("at_once", [True, False])
def test_replacing_leaves_the_new_set_and_nothing_of_the_old(at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an exchange in one step, and by two renames where the system cannot do that."""
    if not at_once:
        monkeypatch.setattr(staging, "_exchange", lambda a, b: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(name)
    staging.put_in_place(tmp_path / "new", tmp_path / "old")
    assert {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"dataset.json": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_what_was_replaced_and_not_yet_removed_goes_with_the_next_build(raw: Path, built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "set")
    shutil.copytree(built, tmp_path / ".set.replaced")
    assert build("us4", raw=raw, out=tmp_path / "set", workers=1).unchanged
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def clips(folder: Path, *names: str) -> Path:
    for name in names:
        seed = int.from_bytes(name.encode()) % 2**32
        write_video(folder / f"{name}.mkv", speckle_frames(12, seed=seed), codec="ffv1")
    return folder


def two_sources(**changes: object) -> Recipe:
    rules = {"one": {"rule": "every", "every": 2}, "two": {"rule": "all"}} | changes.pop("rules", {})  # type: ignore[operator]
    sources = [{"name": name, "layout": "files", "root": name, "sampling": rule} for name, rule in rules.items()]
    return Recipe.model_validate({"name": "test", "sources": sources} | changes)


@pytest.fixture
def standing(tmp_path: Path) -> Path:
    clips(tmp_path / "raw" / "one", "a", "b", "c")
    clips(tmp_path / "raw" / "two", "d", "e")
    return build(two_sources(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1).out


@pytest.mark.parametrize(
    ("changes", "reused"),
    [
        ({"folds": {"count": 2}}, 5),
        ({"classes": ["x"]}, 5),
        ({"rules": {"two": {"rule": "every", "every": 3}}}, 3),
        ({"hygiene": {"blank_mean": 5}}, 0),
        ({"image": {"max_side": 32}}, 0),
    ],
)
def test_a_changed_recipe_does_the_steps_that_it_touches(changes: dict[str, object], reused: int, standing: Path, tmp_path: Path) -> None:
    recipe = two_sources(**changes)
    with pytest.raises(UserError, match="--overwrite"):
        build(recipe, raw=tmp_path / "raw", out=standing, workers=1)
    after = build(recipe, raw=tmp_path / "raw", out=standing, workers=1, overwrite=True)
    assert (after.reused, after.unchanged) == (reused, False)
    fresh = build(recipe, raw=tmp_path / "raw", out=tmp_path / "fresh", workers=1)
    assert tree_bytes(after.out) == tree_bytes(fresh.out)


def test_new_files_are_added_without_overwrite_and_nothing_else_is_done_again(standing: Path, tmp_path: Path) -> None:
    clips(tmp_path / "raw" / "two", "f")
    (tmp_path / "raw" / "notes.txt").write_text("new")
    after = build(two_sources(), raw=tmp_path / "raw", out=standing, workers=1)
    assert (after.reused, after.counts["ok"], after.counts["found"]) == (5, 6, 7)
    fresh = build(two_sources(), raw=tmp_path / "raw", out=tmp_path / "fresh", workers=1)
    assert tree_bytes(after.out) == tree_bytes(fresh.out)


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_files_that_changed_or_went_need_overwrite(change: str, standing: Path, tmp_path: Path) -> None:
    before = tree_bytes(standing)
    (tmp_path / "raw" / "one" / "a.mkv").unlink()
    if change == "changed":
        write_video(tmp_path / "raw" / "one" / "a.mkv", speckle_frames(12, seed=99), codec="ffv1")
    with pytest.raises(UserError, match=r"other raw files.*--overwrite"):
        build(two_sources(), raw=tmp_path / "raw", out=standing, workers=1)
    assert tree_bytes(standing) == before
    after = build(two_sources(), raw=tmp_path / "raw", out=standing, workers=1, overwrite=True)
    assert after.reused == 4


def test_a_link_to_a_data_set_stays_a_link(standing: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(standing)
    after = build(two_sources(folds={"count": 2}), raw=tmp_path / "raw", out=link, workers=1, overwrite=True)
    assert (after.reused, link.is_symlink(), after.out) == (5, True, standing)
    assert usdata.load(link).frames.fold.notna().all()


def test_images_that_were_touched_are_not_taken_over(standing: Path, tmp_path: Path) -> None:
    image = next(standing.rglob("*.png"))
    write_png(image, speckle_frames(1, seed=7)[0])
    after = build(two_sources(folds={"count": 2}), raw=tmp_path / "raw", out=standing, workers=1, overwrite=True)
    assert after.reused == 4
    fresh = build(two_sources(folds={"count": 2}), raw=tmp_path / "raw", out=tmp_path / "fresh", workers=1)
    assert tree_bytes(after.out) == tree_bytes(fresh.out)


def test_a_build_with_nothing_to_do_is_quick(built: Path, raw: Path) -> None:
    start = time.perf_counter()
    assert build("us4", raw=raw, out=built, workers=2).unchanged
    assert time.perf_counter() - start < 2


def test_every_file_is_kept_excluded_or_failed(built: Path, raw: Path) -> None:
    data = usdata.load(built)
    counts = data.about["counts"]
    assert counts["found"] == sum(counts[status] for status in manifest.STATUSES) == len(data.videos)
    folders = {path for path in data.videos.path if (raw / path).is_dir()}
    files = {path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file()}
    inside = {path for path in files if any(path.startswith(f"{folder}/") for folder in folders)}
    assert files - inside == set(data.videos.path) - folders
    assert counts["failed"] == 1
    assert json.loads((built / "dataset.json").read_text())["counts"] == counts
