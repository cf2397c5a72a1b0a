"""Which clips and frames of a data set published names mean: exactly, then by stem, then by stem without the number of a frame.

Every name that is given is matched, ambiguous or unmatched, and counted as one of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

# 'clip_frame12', 'clip.gif_frame12', 'clip-f0012', 'clip_12'
FRAME_SUFFIX = re.compile(r"(?P<clip>.+?)[ _.-]+(?:frame|frm|fr|f|image|img)?[ _-]?(?P<number>\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Match:
    """What one name means.

    Attributes:
        how: "exact", "stem", "frame" (the stem without a frame's number), "ambiguous" or "unmatched".
        video_id: The clip; None where there is not one.
        frame_id: The one frame that is meant; None: the whole clip, or a frame that the data set does not hold.
        whole: The whole clip is meant.
        candidates: The clips that an ambiguous name may mean.
    """

    how: str
    video_id: str | None = None
    frame_id: str | None = None
    whole: bool = False
    candidates: tuple[str, ...] = ()


class Names:
    """The names of a data set's clips and frames.

    Args:
        videos: Rows of videos.parquet: video_id, path.
        frames: Rows of frames.parquet: frame_id, video_id, frame_index, path.
    """

    def __init__(self, videos: Iterable[Mapping[str, Any]], frames: Iterable[Mapping[str, Any]]) -> None:
        self._video_of_frame: dict[str, str] = {}
        self._frame_at: dict[tuple[str, int], str] = {}
        self._paths: dict[str, str] = {}
        self._exact: dict[str, set[tuple[str, str | None]]] = defaultdict(set)
        self._stems: dict[str, set[tuple[str, str | None]]] = defaultdict(set)
        for video in videos:
            video_id, path = video["video_id"], PurePosixPath(video["path"])
            self._paths[video_id] = video["path"]
            name = video_id.partition("/")[2]
            for text in (video_id, name, str(path), path.name):
                self._exact[text].add((video_id, None))
            bare = path.with_suffix("")
            for stem in (bare, bare.with_suffix("")) if path.suffix == ".gz" else (bare,):  # clip.nii.gz
                self._stems[str(stem)].add((video_id, None))
                self._stems[stem.name].add((video_id, None))
        for frame in frames:
            meaning = (frame["video_id"], frame["frame_id"])
            path = PurePosixPath(frame["path"])
            self._frame_at[frame["video_id"], frame["frame_index"]] = frame["frame_id"]
            for text in (frame["frame_id"], str(path), path.name):
                self._exact[text].add(meaning)
            self._stems[path.stem].add(meaning)

    def match(self, name: str) -> Match:
        """What a name (a path with forward slashes, a file name, an id) means."""
        path = PurePosixPath(name)
        if not path.name:
            return Match("unmatched")
        # A name may come without its own suffix (and hold other dots), or with another one.
        for how, tables, texts in (
            ("exact", (self._exact,), (name, path.name)),
            ("stem", (self._stems,), (name, path.name)),
            ("stem", (self._stems, self._exact), (str(path.with_suffix("")), path.stem)),
        ):
            for text in texts:
                found: set[tuple[str, str | None]] = set().union(*(table.get(text, set()) for table in tables))
                if found:
                    return self._one(how, name, found, None)
        for text in (path.name, path.stem):
            if (cut := FRAME_SUFFIX.fullmatch(text)) is not None:
                found = self._exact.get(cut["clip"], set()) | self._stems.get(cut["clip"], set())
                if found:
                    return self._one("frame", name, found, int(cut["number"]))
        return Match("unmatched")

    def _one(self, how: str, name: str, found: set[tuple[str, str | None]], number: int | None) -> Match:
        videos = {video_id for video_id, _ in found}
        if len(videos) > 1:
            videos = self._nearest(name, videos)
        if len(videos) > 1:
            return Match("ambiguous", candidates=tuple(sorted(videos)))
        video_id = videos.pop()
        of_video = {frame_id for video, frame_id in found if video == video_id}
        if number is not None:
            return Match(how, video_id, self._frame_at.get((video_id, number)))
        # The name of a clip goes before that of a frame of it.
        frame_id = None if None in of_video else min(frame_id for frame_id in of_video if frame_id is not None)
        return Match(how, video_id, frame_id, whole=frame_id is None)

    def _nearest(self, name: str, videos: set[str]) -> set[str]:
        """Those of the clips whose raw path agrees with the name in most folders, from the end."""
        folders = PurePosixPath(name).parts[-2::-1]

        def agreeing(video_id: str) -> int:
            own = PurePosixPath(self._paths[video_id]).parts[-2::-1]
            count = 0
            for one, other in zip(folders, own, strict=False):
                if one != other:
                    break
                count += 1
            return count

        most = max(agreeing(video_id) for video_id in videos)
        return {video_id for video_id in videos if agreeing(video_id) == most}
