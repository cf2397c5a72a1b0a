"""Fields of view that clips of one device agree on, offered to those of its clips whose own was not found with certainty.

Scanners of one make, at one picture size, in one source, draw their tissue in a few places: one a probe and depth. Where several clips were
seen surely and agree, a dark or hardly moving clip of the same device is likely to lie there too. What is offered is not yet taken: the
per-video step is done again and holds it against the clip itself (`usdata.imaging.field_of_view.best_supported`).

Guarantees: what is offered depends on what certain clips were found to show by themselves, and not on what was offered before; nor on the
order of clips.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usdata.imaging.field_of_view import CERTAIN
from usdata.imaging.geometry import Geometry, geometry_from
from usdata.layouts import RawVideo

AGREE = 0.95  # intersection over union of two clips' fields of view that are the same
FEWEST_CLIPS = 3  # that agree
MOST_OFFERED = 8  # to one clip, those of most clips first
MOST_PLACES = 64  # that one device's clips are sorted into; further ones are left alone
HOLDS = 0.6  # of what was found in a clip itself: a shape that holds less need not be tried
SIDE = 160  # pixels of the masks that are compared

_Device = tuple[str, str, str, int, int]


@dataclass
class _Place:
    """Clips whose fields of view agree with that of the first.

    Attributes:
        first: Its mask.
        total: Sum of all masks.
        members: Geometry as JSON, and mask.
    """

    first: NDArray[np.bool_]
    total: NDArray[np.float64]
    members: list[tuple[str, NDArray[np.bool_]]]


def offered(rows: Sequence[RawVideo], results: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Geometries (JSON) that each clip without a certain one is to be held against; a clip to which nothing is offered is absent.

    Args:
        rows: All clips.
        results: Their per-video steps' results, with or without what was offered before.
    """
    certain: dict[_Device, list[str]] = defaultdict(list)
    asking: dict[_Device, list[tuple[str, str]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.video_id):
        result = results[row.video_id]
        video = result["video"]
        origin, device = video.get("fov_origin"), _device(row, video)
        if origin == "estimate" and video["fov_confidence"] >= CERTAIN:
            certain[device].append(video["fov_geometry"])
        elif origin == "estimate":
            asking[device].append((row.video_id, video["fov_geometry"]))
        elif origin in ("none", "consensus") and video["fov_views"] == 1 and result["proposal"] is not None:
            asking[device].append((row.video_id, result["proposal"]))
    found: dict[str, tuple[str, ...]] = {}
    for device, clips in asking.items():
        shapes = agreed(certain.get(device, ()), device[4], device[3])
        for video_id, text in clips:
            own = _small(geometry_from(text), device[4], device[3])
            fitting = [text for text, mask in shapes if np.count_nonzero(mask & own) >= HOLDS * np.count_nonzero(own)]
            if fitting:
                found[video_id] = tuple(fitting[:MOST_OFFERED])
    return found


def agreed(geometries: Iterable[str], height: int, width: int) -> list[tuple[str, NDArray[np.bool_]]]:
    """Geometries that several clips agree on, those of most clips first: of each, that of the clip nearest to all, and its mask.

    Args:
        geometries: JSON, of clips in the order of their names.
        height: Of their pictures.
        width: Of their pictures.
    """
    places: list[_Place] = []
    for text in geometries:
        mask = _small(geometry_from(text), height, width)
        place = next((place for place in places if _overlap(place.first, mask) >= AGREE), None)
        if place is None:
            if len(places) == MOST_PLACES:
                continue
            place = _Place(mask, np.zeros(mask.shape), [])
            places.append(place)
        place.total += mask
        place.members.append((text, mask))
    places = [place for place in places if len(place.members) >= FEWEST_CLIPS]
    places.sort(key=lambda place: -len(place.members))
    return [max(place.members, key=lambda member, place=place: _nearness(member[1], place)) for place in places]  # type: ignore[misc]


def _device(row: RawVideo, video: Mapping[str, Any]) -> _Device:
    maker = row.facts.get("manufacturer") or video.get("manufacturer") or ""
    return row.source, maker, video.get("device") or "", video.get("width") or 0, video.get("height") or 0


def _small(geometry: Geometry, height: int, width: int) -> NDArray[np.bool_]:
    scale = min(1.0, SIDE / max(height, width))
    return geometry.scaled(scale, scale).mask(max(1, round(height * scale)), max(1, round(width * scale)))


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return np.count_nonzero(a & b) / max(np.count_nonzero(a | b), 1)


def _nearness(mask: NDArray[np.bool_], place: _Place) -> float:
    """Overlap with the mean mask of a place: sum of the lesser over sum of the greater."""
    mean = place.total / len(place.members)
    return float(np.minimum(mask, mean).sum() / np.maximum(mask, mean).sum())
