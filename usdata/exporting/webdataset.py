"""Tar shards as the library `webdataset` streams them: one sample a clip, shards of their own for each split.

In: a data set. Out: `<split>-<k>.tar` and `index.json`. In a shard the clip's frames follow one another as `<key>.<frame_index>.png`, with
`<key>.cls` (the class, if it has one) and `<key>.json` (facts, group, times). Guarantees: stored PNGs, unchanged; equal sets, equal bytes.

All frames share the clip's key because `webdataset` ends a key at the first dot and makes one sample of what has one key: so
`sample["000012.png"]` is frame 12 as a picture, no reader of ours is needed, and two views of a clip never need a second sample.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from usdata.errors import DataSetError
from usdata.exporting.images import stored_png
from usdata.exporting.licences import copy_attribution
from usdata.exporting.splits import by_split
from usdata.files import canonical_json, sha256_file, sha256_text, write_json
from usdata.manifest import FRAMES, FRAMES_SCHEMA, VIDEOS, VIDEOS_SCHEMA, DataSet, read_table

SHARD_BYTES = 500_000_000
INDEX = "index.json"

_KEY_LENGTH = 80  # a tar's plain header holds names of 100 characters
_INDEX_DIGITS = 6
_OF_THE_CLIP = ("label_index", "fold", "split")
_OF_THE_FRAME = (
    *(name for name in FRAMES_SCHEMA.names if name not in (*VIDEOS_SCHEMA.names, *_OF_THE_CLIP, "frame_id", "path")),
    *("width", "height", "fov_x", "fov_y", "fov_width", "fov_height"),  # of the stored image, where the clip has those of the raw picture
)
_NOT_EXPORTED = ("overlay_path", "key_frames_path", "key_frames", "key_frames_box")


def export_webdataset(data: DataSet, folder: Path, *, images: str, advance: Callable[[int], None]) -> int:
    """Write all kept frames below a folder; gives the number of clips.

    Raises:
        DataSetError: An image of the data set is missing or damaged, or frames name a clip or a split that is none.
    """
    frames, videos = read_table(data.folder, FRAMES), read_table(data.folder, VIDEOS).drop_columns(list(_NOT_EXPORTED))
    rows = {video_id: number for number, video_id in enumerate(videos["video_id"].to_pylist())}
    clips = pc.unique(frames["video_id"]).to_pylist()
    strangers = [video_id for video_id in clips if video_id not in rows]
    if strangers:
        raise DataSetError(data.folder / FRAMES, f"names the clip '{strangers[0]}', which {VIDEOS} lacks", "build the set again")
    keys = sample_keys(clips)
    shards = []
    for split, of_split in by_split(data.folder, frames):
        samples = (
            _sample(data.folder, keys[video_id], videos.slice(rows[video_id], 1).to_pylist()[0], clip)
            for video_id, clip in _by_clip(of_split)
        )
        shards += _write_shards(folder, split, samples, advance)
    write_json(folder / INDEX, {"name": data.name, "digest": data.digest, "classes": data.classes, "shards": shards})
    copy_attribution(data, folder)
    return len(clips)


def sample_keys(video_ids: Iterable[str]) -> dict[str, str]:
    """video_id to its sample's key: letters, digits, `_` and `-` alone, because a dot ends a key and a slash makes a folder.

    Where two ids would share a key, or a key would be too long, the id's digest is put behind it. The sample's JSON names the id.
    """
    plain = {video_id: re.sub(r"[^A-Za-z0-9_-]", "_", video_id.replace("/", "__")) for video_id in video_ids}
    shared = Counter(key.casefold() for key in plain.values())
    return {
        video_id: key
        if shared[key.casefold()] == 1 and len(key) <= _KEY_LENGTH
        else f"{key[: _KEY_LENGTH - 17]}-{sha256_text(video_id)[:16]}"
        for video_id, key in plain.items()
    }


def _by_clip(frames: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The runs of rows that belong to one clip: the manifest is sorted by clip."""
    video_ids = frames["video_id"].to_pylist()
    start = 0
    for number in range(1, len(video_ids) + 1):
        if number == len(video_ids) or video_ids[number] != video_ids[start]:
            yield video_ids[start], frames.slice(start, number - start)
            start = number


def _sample(dataset: Path, key: str, video: dict[str, Any], clip: pa.Table) -> list[tuple[str, bytes]]:
    """The files of a clip, in the order of their names: times and facts come last, in `<key>.json`."""
    files, frames = [], []
    rows = clip.to_pylist()
    for row in rows:
        name = f"{row['frame_index']:0{_INDEX_DIGITS}}.png"
        files.append((f"{key}.{name}", stored_png(dataset, row["path"], row["width"], row["height"])))
        frames.append({"file": name, **{column: row[column] for column in _OF_THE_FRAME}})
    first = rows[0]
    if first["label_index"] is not None:
        files.append((f"{key}.cls", str(first["label_index"]).encode("ascii")))
    about = video | {column: first[column] for column in _OF_THE_CLIP} | {"frames": frames}
    files.append((f"{key}.json", canonical_json(about).encode("utf-8")))
    return files


def _write_shards(
    folder: Path, split: str, samples: Iterator[list[tuple[str, bytes]]], advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Write one split's samples; a shard ends before the sample that would take it over its bound, and holds one at least."""
    shards: list[dict[str, Any]] = []
    sample = next(samples, None)
    while sample is not None:
        path = folder / f"{split}-{len(shards):06}.tar"
        clips = frames = size = 0
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
            while sample is not None and (clips == 0 or size + _bytes(sample) <= SHARD_BYTES):
                for name, content in sample:
                    shard.addfile(_member(name, len(content)), io.BytesIO(content))
                pictures = sum(name.endswith(".png") for name, _ in sample)
                clips, frames, size = clips + 1, frames + pictures, size + _bytes(sample)
                advance(pictures)
                sample = next(samples, None)
        about = {"file": path.name, "split": split, "clips": clips, "frames": frames, "bytes": path.stat().st_size}
        shards.append(about | {"sha256": sha256_file(path)})
    return shards


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A file's header without owner and time: equal sets give equal shards."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    return member


def _bytes(sample: list[tuple[str, bytes]]) -> int:
    return sum(tarfile.BLOCKSIZE + -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for _, content in sample)
