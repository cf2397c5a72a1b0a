"""What was trained on is recognised by its record alone: every kind of copy that is planted, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.uscl.evaluation.scan_sets import build_scans, cropped, smaller_and_brighter, tissue
from usdata.duplicates import guard
from usdata.duplicates.content import Match
from usdata.duplicates.guard import seen_clips
from usdata.duplicates.record import PICTURE, RECORD_SCHEMA, open_record, write_record
from usdata.errors import DataSetError, UserError
from usdata.manifest import DataSet, open_dataset


def remux(source: Path, target: Path) -> Path:
    """The same coded pictures in another container."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)
    return target


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSet, DataSet]:
    folder = tmp_path_factory.mktemp("sets")
    scans = {f"{seed}.mp4": (tissue(seed), f"p{seed}", "") for seed in range(6)} | {"6.mkv": (tissue(6), "p6", "")}
    trained = build_scans(folder, "trained", scans)
    raw = folder / "trained"
    clips = {
        "file.mp4": (raw / "0.mp4", "q0", ""),
        "packets.mkv": (remux(raw / "1.mp4", folder / "remuxed.mkv"), "q1", ""),
        "small.mp4": (smaller_and_brighter(tissue(2)), "q2", ""),
        "crop.mp4": (cropped(tissue(3)), "q3", ""),
        "mirror.mp4": (tissue(4)[:, :, ::-1].copy(), "q4", ""),
        "later.mkv": (np.concatenate([tissue(71)[:5], tissue(6)[5:]]), "q7", ""),
        "stranger.mp4": (tissue(70), "p0", ""),
        "dark.mp4": (tissue(5) // 9 + 10, "q6", ""),
    }
    # Of another source: the patient p0 of one hospital is not p0 of another.
    return open_dataset(trained), open_dataset(build_scans(folder, "tested", clips))


def video_ids(dataset: DataSet) -> set[str]:
    return set(dataset.frames["video_id"])


def test_every_planted_copy_is_recognised_and_no_stranger(sets: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    trained, tested = sets
    write_record(tmp_path / "r.parquet", trained, video_ids(trained))
    found = {each.video_id: each for each in seen_clips(open_record(tmp_path / "r.parquet"), tested, video_ids(tested), workers=1)}
    planted = {"file_mp4": ("file", 0), "packets_mkv": ("packets", 1), "small_mp4": ("content", 2), "crop_mp4": ("content", 3)}
    planted |= {"mirror_mp4": ("content", 4), "later_mkv": ("pixels", 6)}
    assert {name: (each.kind, each.trained_on) for name, each in found.items()} == {
        f"tested/{name}": (kind, f"trained/{seed}_mkv" if seed == 6 else f"trained/{seed}_mp4") for name, (kind, seed) in planted.items()
    }
    stored = tested.frames.loc[tested.frames["video_id"] == "tested/later_mkv", "frame_index"]
    assert 0 < (stored < 5).mean() < 1
    assert found["tested/later_mkv"].score == pytest.approx((stored >= 5).mean()), "its first five frames are another scan's"
    assert all(0.4 < each.score <= 1 for each in found.values())
    assert {each.trained_in for each in found.values()} == {"trained"}
    few = seen_clips(open_record(tmp_path / "r.parquet"), tested, {"tested/stranger_mp4", "tested/crop_mp4"}, workers=1)
    assert [each.video_id for each in few] == ["tested/crop_mp4"]


def test_patients_and_groups_are_compared_within_a_source(sets: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    trained, _ = sets
    clips = {"new.mp4": (tissue(80), "p1", ""), "other.mp4": (tissue(81), "p77", ""), "none.mp4": (tissue(82), "", "")}
    tested = open_dataset(build_scans(tmp_path, "later", clips, source="trained"))
    write_record(tmp_path / "r.parquet", trained, video_ids(trained))
    (seen,) = seen_clips(open_record(tmp_path / "r.parquet"), tested, video_ids(tested), workers=1)
    assert (seen.video_id, seen.kind, seen.trained_on) == ("trained/new_mp4", "patient", "trained/1_mp4")


def test_a_record_holds_the_clips_once_and_is_equal_for_equal_arguments(sets: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    trained, tested = sets
    write_record(tmp_path / "first.parquet", trained, video_ids(trained), labelled=["trained/0_mp4"], digests=["f" * 64])
    first = open_record(tmp_path / "first.parquet")
    assert [row["video_id"] for row in first.rows] == [*sorted(video_ids(trained)), None]
    assert first.rows[-1]["sha256"] == "f" * 64
    assert [row["labels_used"] for row in first.rows] == [True, *[False] * 7]
    table = pq.read_table(tmp_path / "first.parquet")
    assert table.schema.names == RECORD_SCHEMA.names
    strip = trained.folder / trained.videos.set_index("video_id").loc["trained/0_mp4", "key_frames_path"]
    assert table.column(PICTURE)[0].as_py() == strip.read_bytes()
    # A second round on some of the same clips, and on another set.
    write_record(tmp_path / "second.parquet", trained, ["trained/0_mp4", "trained/1_mp4"], earlier=first)
    write_record(tmp_path / "third.parquet", tested, video_ids(tested), earlier=open_record(tmp_path / "second.parquet"), whole=False)
    third = open_record(tmp_path / "third.parquet")
    assert sorted(str(row["video_id"]) for row in third.rows) == sorted([*video_ids(trained), *video_ids(tested), "None"])
    assert [row["video_id"] for row in third.rows if row["labels_used"]] == ["trained/0_mp4"], "the label was used in the first round"
    assert (first.whole, third.whole) == (True, False)
    write_record(tmp_path / "again.parquet", trained, video_ids(trained), labelled=["trained/0_mp4"], digests=["f" * 64])
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "first.parquet").read_bytes()


def test_a_damaged_record_or_set_is_one_line(sets: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    trained, tested = sets
    path = tmp_path / "r.parquet"
    write_record(path, trained, video_ids(trained))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    for place in range(2_000, len(whole) // 2, 500):
        flipped[place] ^= 0xFF
    for content in (whole[: len(whole) // 2], b"", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"r\.parquet: cannot be read as the record") as caught:
            seen_clips(open_record(path), tested, video_ids(tested), workers=1)
        assert "\n" not in str(caught.value)
    shutil.copy(trained.folder / "videos.parquet", path)
    with pytest.raises(UserError, match="is no record of version 1"):
        open_record(path)
    shutil.copytree(trained.folder, tmp_path / "set")
    next((tmp_path / "set").rglob("*key*.png")).write_bytes(b"no picture")
    with pytest.raises(DataSetError, match="holds no key frames"):
        write_record(tmp_path / "new.parquet", open_dataset(tmp_path / "set"), video_ids(trained))
    assert not (tmp_path / "new.parquet").exists()


def test_what_was_compared_once_is_not_compared_again(
    sets: tuple[DataSet, DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, tested = sets
    shutil.copytree(tested.folder, tmp_path / "tested", ignore=shutil.ignore_patterns(".cache"))
    tested = open_dataset(tmp_path / "tested")
    write_record(tmp_path / "r.parquet", trained, video_ids(trained))
    record = open_record(tmp_path / "r.parquet")
    compared: list[int] = []
    search = guard.same_scans

    def counted(*words: Any, **options: Any) -> list[Match]:
        compared.append(1)
        return search(*words, **options)

    monkeypatch.setattr(guard, "same_scans", counted)
    first = seen_clips(record, tested, video_ids(tested), workers=1)
    assert seen_clips(record, tested, video_ids(tested), workers=1) == first
    assert len(compared) == 1

    # Other clips, other key frames, another record: another question.
    fewer = video_ids(tested) - {"tested/small_mp4"}
    assert {each.video_id for each in seen_clips(record, tested, fewer, workers=1)} == {each.video_id for each in first} - {
        "tested/small_mp4"
    }
    write_record(tmp_path / "less.parquet", trained, sorted(video_ids(trained))[:2])
    less = {each.video_id for each in seen_clips(open_record(tmp_path / "less.parquet"), tested, video_ids(tested), workers=1)}
    assert less == {"tested/file_mp4", "tested/packets_mkv"}
    assert len(compared) == 3

    # A damaged answer is no answer.
    for path in (tmp_path / "tested/.cache").glob("matches-*.json"):
        path.write_text(path.read_text().replace('"score":0.9', '"score":0.1'))
    assert seen_clips(record, tested, video_ids(tested), workers=1) == first
    assert len(compared) == 4

    # Where nothing can be written, nothing is kept and nothing is wrong.
    shutil.rmtree(tmp_path / "tested/.cache")
    (tmp_path / "tested/.cache").write_text("a file in the way")
    assert seen_clips(record, tested, video_ids(tested), workers=1) == first
