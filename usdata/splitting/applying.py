"""A published split laid upon a data set: which part each frame gets, which names meant nothing, and what leaks."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import pandas as pd

from usdata.duplicates.leaks import Leaks, find_leaks
from usdata.errors import UserError, nearest
from usdata.manifest import DataSet
from usdata.splitting.matching import Names
from usdata.splitting.published import Published

FACTS = ["video_id", "source", "patient_id", "group_id"]


@dataclass(frozen=True)
class Placed:
    """What a published split means for a data set.

    Attributes:
        source: What was read.
        matched: "exact", "stem" or "frame" to the number of names that were matched so.
        unmatched: Names that mean no clip of the set.
        ambiguous: Names that may mean several clips, with those.
        without_frames: Clips that are named and of which the set keeps no frame.
        with_their_clip: Frames that are not named themselves and go where all named frames of their clip stand.
        undecided: Frames that are named, or whose clip is, in two parts.
        parts: The part of each row of frames.parquet, in order; None = in none.
        unplaced: Frames without a part, where nobody said that they shall have none.
        unplaced_clips: Their clips.
        leaks: Of all that it names, and of the rest once it is placed.
    """

    source: Published
    matched: dict[str, int]
    unmatched: list[str]
    ambiguous: list[tuple[str, tuple[str, ...]]]
    without_frames: list[str]
    with_their_clip: int
    undecided: int
    parts: list[str | None]
    unplaced: int
    unplaced_clips: int
    leaks: Leaks

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.source.name,
            "sha256": self.source.sha256,
            "column": self.source.column,
            "names": len(self.source.entries),
            "matched": self.matched,
            "unmatched": self.unmatched,
            "ambiguous": [{"name": name, "clips": list(clips)} for name, clips in self.ambiguous],
            "clips_without_frames": self.without_frames,
            "frames_with_their_clip": self.with_their_clip,
            "frames_undecided": self.undecided,
            "frames_unplaced": self.unplaced,
            "clips_unplaced": self.unplaced_clips,
        }


def place(dataset: DataSet, source: Published, *, rest: str | None = None) -> Placed:
    """Match a published split's names and give each frame its part.

    A frame that is named takes its own part; any other takes its clip's: the one part where the clip is named as a whole, else where all of
    its named frames stand. A frame or clip that is named in two parts gets neither.

    Args:
        dataset: The opened data set.
        source: What was read.
        rest: The part of all frames that it does not place; "none" leaves them in no fold.

    Raises:
        UserError: No name means a clip of the set, or `rest` is no part.
    """
    fallback = _rest(source, rest)
    frames, videos = dataset.frames, dataset.videos
    names = Names(
        ({"video_id": row.video_id, "path": row.path} for row in videos.itertuples(index=False)),
        (
            {"frame_id": row.frame_id, "video_id": row.video_id, "frame_index": row.frame_index, "path": row.path}
            for row in frames.itertuples(index=False)
        ),
    )
    matched: Counter[str] = Counter()
    unmatched: list[str] = []
    ambiguous: list[tuple[str, tuple[str, ...]]] = []
    of_frame: dict[str, set[str]] = defaultdict(set)
    of_clip: dict[str, set[str]] = defaultdict(set)
    of_its_frames: dict[str, set[str]] = defaultdict(set)
    for name, part in source.entries:
        match = names.match(name)
        if match.how == "unmatched":
            unmatched.append(name)
        elif match.how == "ambiguous":
            ambiguous.append((name, match.candidates))
        else:
            assert match.video_id is not None
            matched[match.how] += 1
            (of_clip if match.whole else of_its_frames)[match.video_id].add(part)
            if match.frame_id is not None:
                of_frame[match.frame_id].add(part)
    if not matched:
        kinds = f"{len(unmatched):,} unmatched" + (f", {len(ambiguous):,} ambiguous" if ambiguous else "")
        example = unmatched[0] if unmatched else ambiguous[0][0]
        raise UserError(source.name, f"none of its names means one clip of the data set ({kinds}; the first: {example})", _ADVICE)
    parts: list[str | None] = []
    with_their_clip = undecided = 0
    for frame_id, video_id in zip(frames["frame_id"], frames["video_id"], strict=True):
        own = of_frame.get(frame_id)
        named = own or of_clip.get(video_id) or of_its_frames.get(video_id) or set()
        found = next(iter(named)) if len(named) == 1 else None
        undecided += len(named) > 1
        with_their_clip += found is not None and not own and video_id not in of_clip
        parts.append(found if found is not None else fallback)
    placed = [part is not None or rest == "none" for part in parts]
    open_clips = {video for video, is_placed in zip(frames["video_id"], placed, strict=True) if not is_placed}
    claims = [(video, part) for named in (of_clip, of_its_frames) for video, given in named.items() for part in given]
    held = set(frames["video_id"])
    return Placed(
        source=source,
        matched={how: matched[how] for how in ("exact", "stem", "frame")},
        unmatched=unmatched,
        ambiguous=ambiguous,
        without_frames=sorted({video for video, _ in claims} - held),
        with_their_clip=with_their_clip,
        undecided=undecided,
        parts=parts,
        unplaced=placed.count(False),
        unplaced_clips=len(open_clips),
        leaks=_leaks(dataset, frames, parts, claims, of_frame),
    )


_ADVICE = "give the names of clips as they lay under RAW (their stems are enough); paths that left as pseudonyms cannot be matched"


def _rest(source: Published, rest: str | None) -> str | None:
    if rest is None:
        return None
    known = sorted({"train", "val", "test"} if source.column == "split" else {"none", *(part for _, part in source.entries)})
    if rest not in known:
        raise UserError(f"--rest {rest}", f"is no part of a published {source.column}", nearest(rest, known))
    return None if rest == "none" else rest


def _leaks(
    dataset: DataSet, frames: pd.DataFrame, parts: list[str | None], claims: list[tuple[str, str]], of_frame: dict[str, set[str]]
) -> Leaks:
    """Of frames as they are placed, of clips as they are named (their other frames may not be here), of frames named twice."""
    rows = frames[[*FACTS, "duplicate_group"]].assign(part=pd.Series(parts, index=frames.index, dtype=object))
    named = pd.DataFrame(claims, columns=["video_id", "part"]).merge(dataset.videos[FACTS], on="video_id", how="left")
    twice = {frame: given for frame, given in of_frame.items() if len(given) > 1}
    chosen = frames.loc[frames["frame_id"].isin(twice), ["frame_id", *FACTS, "duplicate_group"]]
    more = chosen.assign(part=chosen["frame_id"].map(lambda frame: sorted(twice[frame]))).explode("part").drop(columns="frame_id")
    tables = [table.astype(object) for table in (rows, named.assign(duplicate_group=None), more) if len(table)]
    return find_leaks(pd.concat(tables, ignore_index=True), dataset.duplicates)
