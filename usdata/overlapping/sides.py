"""What is compared with what: a data set's clips, or those of a folder of raw ultrasound, which is read as a data set first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from usdata import manifest
from usdata.duplicates.search import Clips
from usdata.errors import DataSetError, UserError
from usdata.recipe import Recipe

FRAMES_OF_RAW_CLIP = 16


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: Of the data set or folder.
        folder: The data set.
        raw: It was made of a folder of raw clips: these are called by their files, and nothing is told of their patients.
    """

    name: str
    folder: Path
    raw: bool = False

    @cached_property
    def _all_videos(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = manifest.read_table(self.folder, manifest.VIDEOS).to_pylist()
        return [row | {"patient_id": None} for row in rows] if self.raw else rows

    @cached_property
    def videos(self) -> list[dict[str, Any]]:
        """Rows of videos.parquet of the clips that are kept."""
        return [row for row in self._all_videos if row["status"] == "ok"]

    @cached_property
    def unread(self) -> list[str]:
        """Raw clips that could not be read, with the reason; of a data set its own report tells."""
        return [f"{row['path']}: {row['reason']}" for row in self._all_videos if self.raw and row["status"] == "failed"]

    def called(self, video_id: str) -> str:
        """What a clip is called: its id, or its file."""
        return str(self.facts[video_id]["path"]) if self.raw else video_id

    @cached_property
    def facts(self) -> dict[str, dict[str, Any]]:
        """The same by video_id."""
        return {row["video_id"]: row for row in self.videos}

    @cached_property
    def frames(self) -> list[dict[str, Any]]:
        """Of frames.parquet what is compared and shown."""
        columns = ["frame_id", "video_id", "frame_index", "pixel_sha256", "quality_std", "path"]
        return list(manifest.read_table(self.folder, manifest.FRAMES).select(columns).to_pylist())

    @property
    def clips(self) -> Clips:
        """With their key frames."""
        return Clips.of(self.folder, self.videos)

    @cached_property
    def _paths(self) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for row in self.frames:
            found.setdefault(row["video_id"], []).append((row["frame_index"], row["path"]))
        return found

    def picture(self, video_id: str, frame_index: int) -> str:
        """Path of the clip's stored image that is nearest to a frame, relative to the data set."""
        return min(self._paths[video_id], key=lambda frame: (abs(frame[0] - frame_index), frame[0]))[1]


@contextmanager
def sides(a: Path, b: Path | None, *, workers: int | None) -> Iterator[tuple[Side, Side]]:
    """The two, read; a folder of raw clips is built as a data set that is gone afterwards.

    Raises:
        DataSetError: A folder is missing, or a data set of another schema.
        UserError: A folder holds no ultrasound that can be read.
    """
    if b is not None and a.resolve() == b.resolve():
        raise UserError(b, "is named twice", "give it once: each pair of its clips is then compared")
    with ExitStack() as stack:
        first = _side(a, stack, workers)
        yield first, (first if b is None else _side(b, stack, workers))


def _side(folder: Path, stack: ExitStack, workers: int | None) -> Side:
    if folder.is_file():
        raise DataSetError(folder, "is a file", "name a folder that 'usdata build' made, or one of raw clips")
    if not folder.is_dir():
        raise DataSetError(folder, "no such data set or folder of clips", "name a folder that 'usdata build' made, or one of raw clips")
    if (folder / manifest.DATASET_JSON).is_file():
        return Side(str(manifest.open_dataset(folder).about["name"]), folder)
    if not any(folder.iterdir()):
        raise UserError(folder, "is empty", "name a folder that 'usdata build' made, or one of raw clips")
    from usdata.building import build

    place = Path(stack.enter_context(TemporaryDirectory(prefix="usdata-overlap-"))) / "set"
    source = {
        "name": "raw",
        "layout": "files",
        "patient_ids": "public",
        "sampling": {"rule": "count", "count": FRAMES_OF_RAW_CLIP},
    }
    about = {"name": "raw", "sources": [source], "modes": None, "folds": {"count": 0}, "duplicates": {"content": False}}
    result = build(Recipe.model_validate(about), raw=folder, out=place, workers=workers)
    if not result.counts["ok"]:
        raise UserError(folder, "holds no ultrasound that can be read", f"see what lies in it with 'usdata scan {folder}'")
    return Side(folder.name, place, raw=True)
