"""A clip's limits, in real builds: a killed worker, a clip that never ends, a picture beyond the memory limit; each costs one row."""

import os
import signal
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.usdata.clips import speckle_frames, write_png, write_video
from tests.usdata.readers.generated import X264_B, encode
from usdata.building import build
from usdata.engines import run_local
from usdata.manifest import open_dataset
from usdata.recipe import Recipe

FRAMES = 500


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip that takes about a second to read, and a short one."""
    folder = tmp_path_factory.mktemp("limits") / "raw"
    write_video(folder / "long.mkv", speckle_frames(FRAMES, height=240, width=320), codec="ffv1")
    write_video(folder / "short.mkv", speckle_frames(5, seed=1), codec="ffv1")
    return folder


def recipe(**read: object) -> Recipe:
    source = {"name": "ward", "layout": "files", "sampling": {"rule": "all"}}
    return Recipe.model_validate({"name": "limits", "sources": [source], "read": read, "folds": {"count": 0}})


def children() -> set[int]:
    """Worker processes of this one."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = status.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.rpartition(")")[2].split()[1]) == os.getpid() and "spawn_main" in (status.parent / "cmdline").read_text():
            found.add(int(number))
    return found


class Killer(threading.Thread):
    """Kills the worker that is storing frames of the long clip, a number of times, each time another worker."""

    def __init__(self, staging: Path, times: int) -> None:
        super().__init__(daemon=True)
        self.staging, self.times, self.killed = staging, times, 0
        self.already: set[int] = set()

    def run(self) -> None:
        deadline = time.monotonic() + 60
        seen: set[Path] = set()
        while self.killed < self.times and time.monotonic() < deadline:
            # Frames in a staging folder of this try: the clip is in the middle of being decoded.
            busy = {path.parent for path in self.staging.glob("images/ward/.part-*/long_mkv_frame*.png")} - seen
            living = children() - self.already
            if busy and living:
                seen |= busy
                for worker in living:
                    os.kill(worker, signal.SIGKILL)
                self.already |= living
                self.killed += 1
            time.sleep(0.002)


def built_under_fire(raw: Path, out: Path, times: int) -> tuple[dict[str, dict[str, object]], int]:
    killer = Killer(out.parent / f".{out.name}.building", times)
    killer.start()
    build(recipe(), raw=raw, out=out, workers=1)
    killer.join()
    rows = open_dataset(out).videos.set_index("path").to_dict("index")
    return rows, killer.killed


def test_a_clip_killed_in_the_middle_of_decoding_is_tried_again(raw: Path, tmp_path: Path) -> None:
    rows, killed = built_under_fire(raw, tmp_path / "set", times=1)
    assert killed == 1
    assert (rows["long.mkv"]["status"], rows["long.mkv"]["frames_kept"]) == ("ok", FRAMES)
    assert rows["short.mkv"]["status"] == "ok"
    undisturbed = tmp_path / "undisturbed"
    build(recipe(), raw=raw, out=undisturbed, workers=1)
    for name in ("videos.parquet", "frames.parquet", "excluded.parquet"):
        assert (undisturbed / name).read_bytes() == (tmp_path / "set" / name).read_bytes()
    assert not list((tmp_path / "set").rglob(".part-*"))


def test_a_clip_killed_twice_is_recorded_and_the_build_goes_on(raw: Path, tmp_path: Path) -> None:
    rows, killed = built_under_fire(raw, tmp_path / "set", times=2)
    assert killed == 2
    assert rows["long.mkv"]["status"] == "failed"
    assert rows["long.mkv"]["reason"] == "the decoder was killed (SIGKILL), 2 times"
    assert (rows["short.mkv"]["status"], rows["short.mkv"]["frames_kept"]) == ("ok", 5)
    assert not list((tmp_path / "set").rglob(".part-*"))


def test_a_clip_beyond_the_time_limit_is_recorded(raw: Path, tmp_path: Path) -> None:
    build(recipe(timeout_s=0.4), raw=raw, out=tmp_path / "set", workers=1)
    rows = open_dataset(tmp_path / "set").videos.set_index("path")
    assert rows.loc["long.mkv", "reason"] == "took longer than 0.4 s, 2 times"
    assert rows.loc["short.mkv", "status"] == "ok"


def test_a_picture_beyond_the_memory_limit_is_recorded(tmp_path: Path) -> None:
    """A sound PNG of 99 megapixels in 16-bit colour takes 600 MB: more than the 256 MB that the recipe gives."""
    side = 9_950
    head = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + 6 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    write_png(raw / "small.png", speckle_frames(1)[0])
    build(recipe(memory_mb=256), raw=raw, out=tmp_path / "set", workers=1)
    rows = open_dataset(tmp_path / "set").videos.set_index("path")
    assert rows.loc["small.png", "status"] == "ok"
    assert rows.loc["huge.png", "status"] == "failed"
    assert "memory" in rows.loc["huge.png", "reason"].lower()


def take(megabytes: int) -> int:
    """A step that fills memory."""
    try:
        return int(np.ones(megabytes << 20, np.uint8).sum()) >> 20
    except MemoryError:
        return -1


def test_a_worker_has_what_the_limit_gives_and_no_more() -> None:
    results = dict(run_local(take, [100, 400, 100], workers=1, timeout_s=60, memory_mb=300))
    assert results == {0: 100, 1: -1, 2: 100}
    assert dict(run_local(take, [400], workers=1, timeout_s=60)) == {0: 400}


def test_a_truncated_clip_is_kept_or_excluded_as_the_recipe_says(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    frames = np.stack(speckle_frames(60, height=120, width=160))[..., None].repeat(3, axis=3)
    # With the index first, what comes before the cut can be read.
    path = encode(raw / "cut.mp4", frames, *X264_B, "-movflags", "+faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    write_video(raw / "whole.mp4", speckle_frames(20, seed=2))
    for rule, status in (("keep", "ok"), ("exclude", "excluded")):
        out = tmp_path / rule
        build(recipe(truncated=rule), raw=raw, out=out, workers=1)
        data_set = open_dataset(out)
        rows = data_set.videos.set_index("path")
        assert rows.loc["cut.mp4", "status"] == status
        assert "truncated" in rows.loc["cut.mp4", "flags"]
        assert 0 < rows.loc["cut.mp4", "frames_decoded"] < rows.loc["cut.mp4", "frames_declared"] == 60
        assert rows.loc["whole.mp4", "status"] == "ok"
        images = {path.name for path in (out / "images").rglob("*_frame[0-9]*.png")}
        assert len(images) == len(data_set.frames) == rows["frames_kept"].sum()
    assert rows.loc["cut.mp4", "reason"].startswith("cut short: ")
