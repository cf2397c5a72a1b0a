"""Which clips of one data set stand in another, or twice in the same: found by content, verified frame by frame, shown side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from usdata import manifest
from usdata.console import progress
from usdata.duplicates.content import KEY_FRAMES, Match, matches
from usdata.duplicates.signatures import ClipSignature, signatures_of
from usdata.errors import UserError
from usdata.files import write_text

SHOWN = 260  # pixels of a frame on the page
MOST_FRAMES = 64  # of a clip, evenly spaced, that a match is verified with


@dataclass(frozen=True)
class OverlapResult:
    """What was found.

    Attributes:
        a: The first set's name.
        b: The second's; the same where a set was compared with itself.
        clips_a: Clips of the first that could be compared.
        clips_b: Of the second.
        left_out: Clips, of both, whose frames are all too dark or too flat.
        matches: Verified pairs.
        labels: video_id to label, of matched clips that have one.
        patients: video_id to patient_id, likewise.
    """

    a: str
    b: str
    clips_a: int
    clips_b: int
    left_out: list[str]
    matches: list[Match]
    labels: dict[str, str]
    patients: dict[str, str]

    def same_label(self, match: Match) -> bool | None:
        """Whether both clips have one label; None where one of them has none."""
        return _same(self.labels.get(match.a), self.labels.get(match.b))

    def same_patient(self, match: Match) -> bool | None:
        """Whether both clips are of one patient; None where that is not known."""
        return _same(self.patients.get(match.a), self.patients.get(match.b))

    @property
    def contradictory(self) -> list[Match]:
        """Matches of clips with different labels."""
        return [match for match in self.matches if self.same_label(match) is False]

    @property
    def across_patients(self) -> list[Match]:
        """Matches of clips that are not known to be of one patient."""
        return [match for match in self.matches if not self.same_patient(match)]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "a": self.a,
            "b": self.b,
            "clips_a": self.clips_a,
            "clips_b": self.clips_b,
            "left_out": self.left_out,
            "matches": [
                asdict(match) | {"same_label": self.same_label(match), "same_patient": self.same_patient(match)} for match in self.matches
            ],
        }


def _same(one: str | None, other: str | None) -> bool | None:
    return None if one is None or other is None else one == other


class _Set:
    """A data set's clips with their stored frames, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = manifest.open_dataset(folder).about
        columns = ["video_id", "frame_index", "path", "pixel_sha256", "fov_x", "fov_y", "fov_width", "fov_height"]
        self.frames: dict[str, list[dict[str, Any]]] = {}
        for row in manifest.read_table(folder, manifest.FRAMES).select(columns).to_pylist():
            self.frames.setdefault(row["video_id"], []).append(row)
        for rows in self.frames.values():
            rows.sort(key=lambda row: row["frame_index"])
        videos = manifest.read_table(folder, manifest.VIDEOS).select(["video_id", "label", "patient_id"]).to_pylist()
        self.facts = {row["video_id"]: row for row in videos}

    def signatures(self) -> tuple[list[ClipSignature], list[str]]:
        """Key signatures of the clips that have some, and the names of the others."""
        found, without = [], []
        with progress(f"looking at {self.about['name']}", len(self.frames), "clips") as advance:
            for video_id in sorted(self.frames):
                clip = signatures_of(self.folder, self.frames[video_id], KEY_FRAMES)
                if clip is None:
                    without.append(video_id)
                else:
                    found.append(clip)
                advance(1)
        return found, without


def overlap(a: str | Path, b: str | Path | None = None, *, page: str | Path | None = None) -> OverlapResult:
    """Compare two data sets, or one with itself.

    Args:
        a: A data set folder.
        b: Another; None: `a` itself, each pair of its clips once.
        page: HTML to write, the matches side by side; None: none.

    Raises:
        DataSetError: A folder is no data set, or an image of it cannot be read.
        UserError: `page` is no name of an HTML page, or lies in a set.
    """
    out = None if page is None else _page(Path(page), [Path(a), *([] if b is None else [Path(b)])])
    first = _Set(Path(a))
    second = first if b is None else _Set(Path(b))
    left, without = first.signatures()
    right = left
    if second is not first:
        right, more = second.signatures()
        without = [*without, *more]
    whole = partial(_whole, first, second, left, right)
    found = matches(left, right, within=second is first, whole=whole)
    named = {match.a: first for match in found} | {match.b: second for match in found}
    labels = {name: clips.facts[name]["label"] for name, clips in named.items() if clips.facts[name]["label"] is not None}
    patients = {name: clips.facts[name]["patient_id"] for name, clips in named.items() if clips.facts[name]["patient_id"] is not None}
    result = OverlapResult(first.about["name"], second.about["name"], len(left), len(right), without, found, labels, patients)
    if out is not None:
        _write_page(result, first.folder, second.folder, out)
    return result


def _whole(
    first: _Set, second: _Set, left: Sequence[ClipSignature], right: Sequence[ClipSignature], place_a: int, place_b: int
) -> tuple[ClipSignature, ClipSignature]:
    both = []
    for clips, keys in ((first, left[place_a]), (second, right[place_b])):
        clip = signatures_of(clips.folder, clips.frames[keys.video_id], MOST_FRAMES)
        assert clip is not None
        both.append(clip)
    return both[0], both[1]


def _page(page: Path, sets: Sequence[Path]) -> Path:
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(page, "is no name of an HTML page", "give --out NAME.html")
    if any(folder.resolve() in page.resolve().parents for folder in sets):
        raise UserError(page, "lies inside a data set", "give an --out elsewhere: a data set holds what its recipe made alone")
    return page


def _write_page(result: OverlapResult, first: Path, second: Path, page: Path) -> None:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    rows = [
        {
            "match": match,
            "same_label": result.same_label(match),
            "same_patient": result.same_patient(match),
            "pictures": [_picture(first / match.best[0], flip=False), _picture(second / match.best[1], flip=match.flip)],
            "labels": [result.labels.get(match.a, "no label"), result.labels.get(match.b, "no label")],
            "patients": [result.patients.get(match.a, "unknown patient"), result.patients.get(match.b, "unknown patient")],
        }
        for match in sorted(result.matches, key=lambda match: (-match.score, match.a, match.b))
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, environment.get_template("page.html.jinja").render(result=result, rows=rows))


def _picture(path: Path, *, flip: bool) -> str:
    """A stored frame as a JPEG for a page; mirrored where the match is."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise UserError(path, "is no readable image", "build the set again")
    scale = SHOWN / max(pixels.shape)
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small: NDArray[np.uint8] = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, encoded = cv2.imencode(".jpg", small[:, ::-1] if flip else small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise UserError(path, "could not be encoded as JPEG", "report this")
    return base64.b64encode(encoded.tobytes()).decode("ascii")
