"""The field of view drawn on real recordings, to be judged by eye: the picture in docs/results/field-of-view.md.

    python benchmarks/field_of_view_sheet.py DATA --out docs/images/field-of-view.png [--without PART ...]

One tile for each clip under DATA: a middle frame, green where the field of view was accepted, orange where it is a proposal alone, and from
where. `--without` leaves out clips by a part of their name, such as those with a name burned in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usdata.errors import ReadError
from usdata.imaging.decision import decide
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.field_of_view import ACCEPTED
from usdata.layouts.raw_files import RawFiles
from usdata.readers import open_clip
from usdata.viewing import GREEN, ORANGE, _tile, _write_pages


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without", nargs="*", default=[])
    given = parser.parse_args()
    files = RawFiles(given.data)
    tiles = []
    for path in files.paths:
        if not files.is_clip(path):
            continue
        try:
            tile, said = drawn(given.data / path)
        except ReadError as error:
            print(f"{path}: {error.reason}")
            continue
        print(f"{path}: {said}")
        if not any(part in path for part in given.without):
            tiles.append(tile)
    _write_pages(tiles, given.out)


def drawn(path: Path) -> tuple[NDArray[np.uint8], str]:
    """A clip's tile, and what was decided, in words."""
    collector = EvidenceCollector()
    pictures: list[NDArray[np.uint8]] = []
    with open_clip(path) as clip:
        for frame in clip.frames():
            collector.offer(frame.pixels, clip.picture)
            if len(pictures) < 40:
                pictures.append(np.asarray(clip.rgb()[..., ::-1].copy(), np.uint8))
        regions = clip.info.regions
    decision = decide(collector.evidence, regions, accept=ACCEPTED)
    shown = decision.geometry if decision.geometry is not None else decision.proposal
    sure = "" if decision.confidence is None else f" {decision.confidence:.2f}"
    kind = "nothing" if shown is None else shown.kind.replace("_", " ")
    said = f"{kind}, {decision.origin.replace('_', ' ')}{sure}" + (f" ({decision.why})" if decision.why else "")
    colour = GREEN if decision.geometry is not None else ORANGE
    return _tile(pictures[len(pictures) // 2], shown, colour, path.name, f"{kind}, {decision.origin}{sure}"), said


if __name__ == "__main__":
    main()
