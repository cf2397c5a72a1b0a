"""Contact sheets: what a data set or a clip looks like, with the field of view drawn.

In: a data set folder, or a raw clip. Out: PNG pages: of a set one kept frame a clip, of a clip evenly spaced frames. The outline is green
where it was accepted, and orange where it is only a proposal. Nothing is written into the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from usdata import manifest
from usdata.console import progress
from usdata.errors import UserError
from usdata.files import atomic
from usdata.imaging.decision import Decision, decide
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.field_of_view import ACCEPTED
from usdata.imaging.geometry import Geometry, Rectangle, clipped, geometry_from
from usdata.looking import look_at
from usdata.readers import open_clip
from usdata.recipe import Hygiene

TILE_WIDTH, TILE_HEIGHT, CAPTION = 260, 210, 34
COLUMNS, ROWS = 6, 8
FRAMES_OF_A_CLIP = 12
GREEN, ORANGE, GRAY, WHITE = (90, 220, 90), (60, 160, 255), (150, 150, 150), (235, 235, 235)  # BGR


@dataclass(frozen=True)
class ViewResult:
    """What was drawn.

    Attributes:
        pages: The PNG files.
        tiles: Pictures on them.
        unsure: Of a set, its clips without a field of view; of a clip, 1 where it has none.
        said: What is known of a clip's field of view, one line; empty for a set.
    """

    pages: list[Path]
    tiles: int
    unsure: int
    said: str = ""


def view(target: str | Path, *, out: str | Path | None = None) -> ViewResult:
    """Draw contact sheets.

    Args:
        target: A data set folder, or a raw clip (a file, or a folder of images).
        out: The first page's PNG; further ones get numbers. By default the target's name with "-view.png", here.

    Raises:
        UserError: There is nothing to draw, or `out` is no PNG or lies in the data set.
        ReadError: The clip cannot be read.
    """
    path = Path(target)
    if not path.exists():
        raise UserError(path, "does not exist", "give a data set folder or a clip")
    page = Path(out) if out is not None else Path(f"{path.resolve().stem}-view.png")
    if page.suffix.lower() != ".png":
        raise UserError(page, "is no name of a PNG", "give --out NAME.png")
    if (path / manifest.DATASET_JSON).is_file():
        if path.resolve() in page.resolve().parents:
            raise UserError(page, "lies inside the data set", "give an --out elsewhere: a data set holds what its recipe made alone")
        return _view_set(path, page)
    return _view_clip(path, page)


def _view_set(folder: Path, page: Path) -> ViewResult:
    dataset = manifest.open_dataset(folder)
    frames = dataset.frames.sort_values(["source", "video_id", "frame_index"])
    videos = dataset.videos.set_index("video_id")
    middle = _middle_frames(frames)
    if middle.empty:
        raise UserError(folder, "holds no kept frame to draw", "see status and reason in its videos.parquet")
    tiles = []
    unsure = 0
    with progress("drawing clips", len(middle), "clips") as advance:
        for row in middle.to_dict("records"):
            video = videos.loc[row["video_id"]]
            image = cv2.imdecode(np.frombuffer((folder / row["path"]).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise UserError(folder / row["path"], "is no readable image", "build the set again")
            geometry = None if not isinstance(video["fov_stored_geometry"], str) else geometry_from(video["fov_stored_geometry"])
            unsure += geometry is None
            sure = "" if video["fov_confidence"] != video["fov_confidence"] else f" {video['fov_confidence']:.2f}"
            told = f"{'unsure' if video['fov_origin'] == 'none' else video['fov_origin']}{sure}" + "".join(
                f" {word}" for word in video["overlays"]
            )
            tiles.append(_tile(np.asarray(image, np.uint8), geometry, GREEN, row["video_id"], told))
            advance(1)
    return ViewResult(_write_pages(tiles, page), len(tiles), unsure)


def _middle_frames(frames: pd.DataFrame) -> pd.DataFrame:
    """One row a clip: its middle kept frame."""
    place = frames.groupby("video_id").cumcount()
    size = frames.groupby("video_id")["video_id"].transform("size")
    return frames[place == size // 2]


def _view_clip(path: Path, page: Path) -> ViewResult:
    pictures: list[NDArray[np.uint8]] = []
    stride, count = 1, 0
    with open_clip(path) as clip:
        collector = EvidenceCollector(clip.info.frames_declared)
        for look in look_at(clip, Hygiene()):
            if look.reason is None:
                collector.offer(look.frame.pixels, clip.picture)
            if count % stride == 0:
                pictures.append(np.asarray(clip.rgb()[..., ::-1].copy(), np.uint8))
                if len(pictures) == 2 * FRAMES_OF_A_CLIP:
                    pictures, stride = pictures[::2], stride * 2
            count += 1
        regions = clip.info.regions
    if not pictures:
        raise UserError(path, "no frame of it decodes", "check the file with another player")
    decision = decide(collector.evidence, regions, accept=ACCEPTED)
    shown = decision.geometry if decision.geometry is not None else decision.proposal
    chosen = sorted({round(place) for place in np.linspace(0, len(pictures) - 1, FRAMES_OF_A_CLIP)})
    colour = GREEN if decision.geometry is not None else ORANGE
    tiles = [_tile(pictures[place], shown, colour, path.name, f"frame {place * stride}") for place in chosen]
    return ViewResult(_write_pages(tiles, page), len(tiles), int(decision.geometry is None), _said(decision))


def _said(decision: Decision) -> str:
    sure = "" if decision.confidence is None else f", confidence {decision.confidence:.2f}"
    if decision.geometry is None:
        return f"no field of view is sure enough{sure}: {decision.why}"
    return f"field of view: {decision.geometry.kind.replace('_', ' ')}, by {decision.origin.replace('_', ' ')}{sure}"


def _tile(image: NDArray[np.uint8], geometry: Geometry | None, colour: tuple[int, int, int], name: str, told: str) -> NDArray[np.uint8]:
    """A small picture (BGR) with its outline and two lines of text."""
    scale = min(TILE_WIDTH / image.shape[1], (TILE_HEIGHT - CAPTION) / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8)
    if geometry is not None:
        # Sixteenths of a pixel, so that a fine edge is drawn where it lies; corners are pixel centres before and after.
        within = clipped(geometry.polygon(), Rectangle(0, 0, image.shape[1], image.shape[0]))
        corners = (np.asarray(within or geometry.polygon()) + 0.5) * scale - 0.5
        # Along the picture's own edge the outline is drawn just inside it.
        corners = np.clip(corners, 0, (size[0] - 1, size[1] - 1)) if within else corners
        cv2.polylines(small, [np.rint(corners * 16).astype(np.int32)], True, colour, 1, cv2.LINE_AA, 4)
    tile = np.full((TILE_HEIGHT, TILE_WIDTH, 3), 24, np.uint8)
    left = (TILE_WIDTH - size[0]) // 2
    tile[: size[1], left : left + size[0]] = small
    cv2.putText(tile, _plain(name, 36), (4, TILE_HEIGHT - 20), cv2.FONT_HERSHEY_SIMPLEX, 0.36, WHITE, 1, cv2.LINE_AA)
    cv2.putText(tile, _plain(told, 36), (4, TILE_HEIGHT - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.36, GRAY, 1, cv2.LINE_AA)
    return tile


def _plain(text: str, most: int) -> str:
    """What OpenCV's font can write, the end of long names."""
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return plain if len(plain) <= most else f"..{plain[2 - most :]}"


def _write_pages(tiles: list[NDArray[np.uint8]], first: Path) -> list[Path]:
    pages = []
    for number, start in enumerate(range(0, len(tiles), COLUMNS * ROWS), 1):
        part = tiles[start : start + COLUMNS * ROWS]
        columns = min(COLUMNS, len(part))
        part += [np.full_like(part[0], 24)] * (-len(part) % columns)
        sheet = np.vstack([np.hstack(part[place : place + columns]) for place in range(0, len(part), columns)])
        path = first if number == 1 else first.with_name(f"{first.stem}-{number}{first.suffix}")
        done, encoded = cv2.imencode(".png", sheet)
        if not done:
            raise UserError(path, "could not be encoded as PNG", "report this")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path, durable=False) as temporary:
            temporary.write_bytes(encoded.tobytes())
        pages.append(path)
    return pages
