"""What the consensus of a device's clips is worth: how many more clips get a field of view, and how near it is where the truth is known.

    python benchmarks/field_of_view_consensus.py CLIPS [--every 1] [--sheet OUT.png]

CLIPS holds the clips of one device (of others: sorted by picture size). Each is decoded once. First: how many get a field of view by
themselves, and how many more by consensus. Then, for each clip that was sure by itself, it is taken for unsure: what do the others offer,
is it taken, and how does it overlap with the clip's own? `--sheet` draws every clip that got one by consensus.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from usdata.building.consensus import agreed
from usdata.errors import ReadError
from usdata.imaging.evidence import Evidence, EvidenceCollector
from usdata.imaging.field_of_view import CERTAIN, Estimate, best_supported, estimate
from usdata.imaging.geometry import Geometry, geometry_from, geometry_json, overlap
from usdata.looking import look_at
from usdata.readers import open_clip
from usdata.recipe import Hygiene

SUFFIXES = {".mp4", ".avi", ".mov", ".mpeg", ".mpg"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    clips: dict[tuple[int, int], list[tuple[Path, Evidence, Estimate]]] = {}
    for path in sorted(path for path in given.clips.rglob("*") if path.suffix.lower() in SUFFIXES)[:: given.every]:
        try:
            evidence = look(path)
        except ReadError as error:
            print(f"{path.name}: {error.reason}")
            continue
        if evidence is not None:
            clips.setdefault((evidence.height, evidence.width), []).append((path, evidence, estimate(evidence)))
    everything = [clip for same in clips.values() for clip in same]
    more = [(path, evidence, shape) for same in clips.values() for path, evidence, shape in by_consensus(same)]
    certain = sum(found.confidence >= CERTAIN for _, _, found in everything)
    taken_over = {path for path, _, _ in more}
    accepted = sum(found.accepted and path not in taken_over for path, _, found in everything) - certain
    left = len(everything) - certain - accepted - len(more)
    print(f"{len(everything)} clips: {certain} certain by themselves, {len(more)} by consensus, {accepted} accepted, {left} left")
    overlaps = [value for same in clips.values() for value in left_out(same)]
    taken = [value for value in overlaps if value is not None]
    print(f"of {len(overlaps)} that were certain, taken for unsure, {len(taken)} get one from the others; overlap with their own:")
    if taken:
        good = sum(value >= 0.95 for value in taken)
        print(f"median {np.median(taken):.3f}, least {min(taken):.3f}, {good} ({good / len(taken):.1%}) of .95 and more")
    if given.sheet is not None:
        write_sheet(more, given.sheet)


def look(path: Path) -> Evidence | None:
    """What a clip's unique frames show."""
    with open_clip(path) as clip:
        collector = EvidenceCollector(clip.info.frames_declared)
        for seen in look_at(clip, Hygiene()):
            if seen.reason is None:
                collector.offer(seen.frame.pixels, clip.picture)
    return collector.evidence


def by_consensus(clips: list[tuple[Path, Evidence, Estimate]]) -> list[tuple[Path, Evidence, Geometry]]:
    """Unsure clips of one picture size that get a field of view from the others."""
    shapes = offers([found for _, _, found in clips if found.confidence >= CERTAIN], clips[0][1])
    found = []
    for path, evidence, own in clips:
        shape = None if own.confidence >= CERTAIN or own.views > 1 or own.geometry is None else best(evidence, own, shapes)
        if shape is not None:
            found.append((path, evidence, shape))
    return found


def left_out(clips: list[tuple[Path, Evidence, Estimate]]) -> list[float | None]:
    """For each sure clip the overlap of its own field of view with the one that the others give it; None where they give none."""
    sure = [clip for clip in clips if clip[2].confidence >= CERTAIN]
    overlaps: list[float | None] = []
    for place, (path, evidence, own) in enumerate(sure):
        assert own.geometry is not None
        others = [found for other, (_, _, found) in enumerate(sure) if other != place]
        shape = best(evidence, own, offers(others, evidence))
        overlaps.append(None if shape is None else overlap(own.geometry, shape, evidence.height, evidence.width))
        if overlaps[-1] is not None and overlaps[-1] < 0.95:
            print(f"{path.name}: overlap {overlaps[-1]:.3f} of its own with that of the others")
    return overlaps


def offers(found: list[Estimate], evidence: Evidence) -> list[Geometry]:
    """What sure clips agree on."""
    texts = [geometry_json(one.geometry) for one in found if one.geometry is not None]
    return [geometry_from(text) for text, _ in agreed(texts, evidence.height, evidence.width)]


def best(evidence: Evidence, own: Estimate, shapes: list[Geometry]) -> Geometry | None:
    """The shape that the clip supports most."""
    found = best_supported(evidence, shapes, own)
    return None if found is None else found[0]


def write_sheet(clips: list[tuple[Path, Evidence, Geometry]], path: Path, columns: int = 8) -> None:
    """The mean picture of each with the field of view drawn."""
    tiles = []
    for _, evidence, shape in clips:
        scale = 200 / max(evidence.mean.shape)
        small = np.clip(evidence.mean * 2, 0, 255).astype(np.uint8)
        tile = cv2.cvtColor(cv2.resize(small, None, fx=scale, fy=scale), cv2.COLOR_GRAY2BGR)
        corners = np.asarray(shape.polygon()) * scale / evidence.factor
        cv2.polylines(tile, [np.rint(corners).astype(np.int32)], True, (80, 220, 80), 1, cv2.LINE_AA)
        tiles.append(cv2.copyMakeBorder(tile, 0, 200 - tile.shape[0], 0, 200 - tile.shape[1], cv2.BORDER_CONSTANT))
    tiles += [np.zeros((200, 200, 3), np.uint8)] * (-len(tiles) % columns)
    cv2.imwrite(str(path), np.vstack([np.hstack(tiles[place : place + columns]) for place in range(0, len(tiles), columns)]))


if __name__ == "__main__":
    main()
