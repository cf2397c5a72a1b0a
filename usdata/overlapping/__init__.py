"""Which clips and frames of one data set stand in another, or twice in the same: exact copies, and the same scan by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from usdata.cataloguing.overlaps import known_overlaps
from usdata.duplicates.candidates import by_index
from usdata.duplicates.content import Match
from usdata.duplicates.exact import exact_duplicates
from usdata.duplicates.kept_matches import compared_clips, kept_matches
from usdata.duplicates.search import same_scans
from usdata.engines import runner
from usdata.errors import UserError
from usdata.overlapping.sides import Side, sides
from usdata.recipe import Duplicates

JOIN_SCORE = Duplicates().join_score


@dataclass(frozen=True)
class Pair:
    """A clip of the first set and one of the second (or two of one set) that show the same scan.

    Attributes:
        a: video_id in the first; of a folder of raw clips the file.
        b: Likewise in the second.
        kind: As in duplicates.parquet.
        score: Likewise.
        motion: Likewise.
        flip: One is the other's mirror image.
        scale: Raw pixels of b to one of a, along width and height.
        shift: Raw pixels, see duplicates.parquet.
        frames: Pairs of frame_index that show the same.
        same_label: Whether both have one label; None where one of them has none.
        same_patient: Whether both are of one patient; None where that is not known.
        labels: Of both.
        patients: Of both.
    """

    a: str
    b: str
    kind: str
    score: float
    motion: float | None
    flip: bool
    scale: tuple[float, float]
    shift: tuple[float, float]
    frames: tuple[tuple[int, int], ...]
    same_label: bool | None
    same_patient: bool | None
    labels: tuple[str | None, str | None]
    patients: tuple[str | None, str | None]

    @property
    def frames_a(self) -> tuple[int, int]:
        """First and last frame of a that is found in b."""
        return _interval([pair[0] for pair in self.frames])

    @property
    def frames_b(self) -> tuple[int, int]:
        """Likewise of b."""
        return _interval([pair[1] for pair in self.frames])


@dataclass(frozen=True)
class OverlapResult:
    """What was found.

    Attributes:
        a: The first set's name.
        b: The second's; the same where a set was compared with itself.
        clips_a: Clips of the first.
        clips_b: Of the second.
        left_out: Clips, of both, whose frames are all too dark or too flat to be compared by content.
        unread: Clips of a raw folder that could not be read, and so were not compared, with the reason.
        pairs: The verified pairs, by name.
        known: What the catalogue knows of the sources of both, and how many pairs were found of it.
    """

    a: str
    b: str
    clips_a: int
    clips_b: int
    left_out: list[str]
    unread: list[str]
    pairs: list[Pair]
    known: list[str]

    @property
    def contradictory(self) -> list[Pair]:
        """Pairs of clips with different labels."""
        return [pair for pair in self.pairs if pair.same_label is False]

    @property
    def across_patients(self) -> list[Pair]:
        """Pairs of clips that are not known to be of one patient."""
        return [pair for pair in self.pairs if not pair.same_patient]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        rest = {key: value for key, value in vars(self).items() if key != "pairs"}
        return rest | {"pairs": [asdict(pair) for pair in self.pairs]}


def overlap(a: str | Path, b: str | Path | None = None, *, page: str | Path | None = None, workers: int | None = None) -> OverlapResult:
    """Compare two data sets, a data set with a folder of raw clips, or one with itself.

    Args:
        a: A data set folder, or a folder of raw clips, which is read without leaving anything there.
        b: Another; None: `a` itself, each pair of its clips once.
        page: HTML to write, the pairs side by side; None: none.
        workers: Processes; None: all processors.

    Raises:
        DataSetError: A folder is missing, or its key frames cannot be read.
        UserError: `page` is no name of an HTML page or lies in a set, or a folder holds no clip.
    """
    out = None if page is None else _page(Path(page), [Path(a), *([] if b is None else [Path(b)])])
    with sides(Path(a), None if b is None else Path(b), workers=workers) as (first, second):
        within = second is first
        exact = _exact(first, second)
        sources = tuple({str(row["source"]) for row in side.videos} for side in (first, second))
        known = known_overlaps(sources[0], None if within else sources[1])
        scans = _same_scans(first, second, workers, hinted=bool(known))
        by_content = {(match.a, match.b): _by_content(match, first, second) for match in scans}
        weak, strong = ({(pair.a, pair.b): pair for pair in exact if (pair.score < JOIN_SCORE) == few} for few in (True, False))
        pairs = weak | by_content | strong
        both = (first,) if within else (first, second)
        hits = Counter((first.facts[a]["source"], second.facts[b]["source"]) for a, b in pairs)
        hits += Counter({(b, a): number for (a, b), number in hits.items() if within and a != b})
        result = OverlapResult(
            a=first.name,
            b=second.name,
            clips_a=len(first.videos),
            clips_b=len(second.videos),
            left_out=sorted(side.called(row["video_id"]) for side in both for row in side.videos if row["key_frames_path"] is None),
            unread=sorted(name for side in both for name in side.unread),
            pairs=[_called(pairs[key], first, second) for key in sorted(pairs)],
            known=[f"{each.a} and {each.b}: {each.what} ({_counted(hits[each.a, each.b])} found)" for each in known],
        )
        if out is not None:
            from usdata.overlapping.page import write_page

            write_page(result, [pairs[key] for key in sorted(pairs)], first, second, out)
    return result


def _same_scans(first: Side, second: Side, workers: int | None, *, hinted: bool) -> list[Match]:
    """The same scans by their pictures, compared once: of one set its build has done that."""
    one, other = first.clips, None if second is first else second.clips
    indexed = by_index(len(one.rows), len((other or one).rows), None)
    question = compared_clips(first.videos, None if other is None else second.videos, hinted=hinted, indexed=indexed)
    find = partial(same_scans, one, other, runner("local", workers), hinted=hinted, indexed=indexed)
    return kept_matches(second.folder if first.raw else first.folder, question, find)


def _called(pair: Pair, first: Side, second: Side) -> Pair:
    return replace(pair, a=first.called(pair.a), b=second.called(pair.b))


def _exact(first: Side, second: Side) -> list[Pair]:
    """Pairs with equal files or equal stored frames."""
    within = second is first
    marked = [("a", first)] if within else [("a", first), ("b", second)]
    videos = [{**row, "video_id": f"{mark} {row['video_id']}"} for mark, side in marked for row in side.videos]
    frames = [{**row, "video_id": f"{mark} {row['video_id']}"} for mark, side in marked for row in side.frames]
    rows, _ = exact_duplicates(videos, frames)
    indices: dict[tuple[str, str], int] = {(row["video_id"], row["pixel_sha256"]): row["frame_index"] for row in reversed(frames)}
    by_clip: dict[str, list[Mapping[str, Any]]] = {}
    for row in frames:
        by_clip.setdefault(row["video_id"], []).append(row)
    found = []
    for row in rows:
        a, b = row["video_id_a"], row["video_id_b"]
        if not within and a[0] == b[0]:
            continue
        same = [(frame["frame_index"], indices[b, frame["pixel_sha256"]]) for frame in by_clip[a] if (b, frame["pixel_sha256"]) in indices]
        facts = _facts(first.facts[a[2:]], second.facts[b[2:]])
        found.append(Pair(a[2:], b[2:], row["kind"], row["score"], None, False, (1.0, 1.0), (0.0, 0.0), tuple(same), **facts))
    return found


def _by_content(match: Match, first: Side, second: Side) -> Pair:
    scale, shift = (match.scale_x, match.scale_y), (match.shift_x, match.shift_y)
    facts = _facts(first.facts[match.a], second.facts[match.b])
    return Pair(match.a, match.b, match.kind, match.score, match.motion, match.flip, scale, shift, match.frames, **facts)


def _facts(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "same_label": _same(a["label"], b["label"]),
        "same_patient": _same(a["patient_id"], b["patient_id"]),
        "labels": (a["label"], b["label"]),
        "patients": (a["patient_id"], b["patient_id"]),
    }


def _same(one: str | None, other: str | None) -> bool | None:
    return None if one is None or other is None else one == other


def _counted(pairs: int) -> str:
    return f"{pairs:,} pair{'' if pairs == 1 else 's'}"


def _interval(indices: Sequence[int]) -> tuple[int, int]:
    return min(indices, default=0), max(indices, default=0)


def _page(page: Path, folders: Sequence[Path]) -> Path:
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(page, "is no name of an HTML page", "give --out NAME.html")
    if any(folder.resolve() in page.resolve().parents for folder in folders):
        raise UserError(page, "lies inside a data set", "give an --out elsewhere: a data set holds what its recipe made alone")
    return page
