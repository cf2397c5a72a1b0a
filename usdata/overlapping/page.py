"""The pairs side by side, as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from usdata.errors import UserError
from usdata.files import write_text
from usdata.overlapping import OverlapResult, Pair
from usdata.overlapping.sides import Side

SHOWN = 300  # pixels of a frame on the page
MOST_SHOWN = 500  # pairs with pictures; the rest is in the JSON


def write_page(result: OverlapResult, pairs: Sequence[Pair], first: Side, second: Side, page: Path) -> None:
    """Write it; it holds pictures of both sets, the likest pairs first.

    Args:
        result: What was found.
        pairs: The same pairs by video_id, in the same order.
        first: Where the first clips lie.
        second: Where the second ones do.
        page: The file.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    together = zip(result.pairs, pairs, strict=True)
    ordered = sorted(together, key=lambda both: (both[0].same_label is not False, -both[0].score, both[0].a, both[0].b))
    rows = [{"pair": pair, "pictures": _pictures(by_id, first, second)} for pair, by_id in ordered[:MOST_SHOWN]]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, environment.get_template("page.html.jinja").render(result=result, rows=rows, more=len(ordered) - len(rows)))


def _pictures(pair: Pair, first: Side, second: Side) -> list[str]:
    """Of both clips a frame that is found in the other, or the first one."""
    middle = pair.frames[len(pair.frames) // 2] if pair.frames else (0, 0)
    return [
        _encoded(side.folder / side.picture(video_id, index), flip=flip)
        for side, video_id, index, flip in ((first, pair.a, middle[0], False), (second, pair.b, middle[1], pair.flip))
    ]


def _encoded(path: Path, *, flip: bool) -> str:
    """A stored frame as a JPEG for a page; mirrored where the pair is."""
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
