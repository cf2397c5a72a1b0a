"""COCO's layout, which `pycocotools`, FiftyOne and most annotation tools import: images, and one file of annotations a split.

In: a data set. Out: `images/...` as in the set, and `annotations/<split>.json`, a line an image and an annotation, written as they come.
Guarantees: stored PNGs, unchanged; ids count from 1 in the manifest's order; a labelled frame has one annotation, whose category is its
label and whose outline is the field of view; an unlabelled frame has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from usdata.exporting.images import stored_png
from usdata.exporting.licences import copy_attribution, known_licence
from usdata.exporting.splits import by_split
from usdata.imaging.geometry import Rectangle, clipped, geometry_from
from usdata.manifest import FRAMES, VIDEOS, DataSet, read_table

_FACTS = ("frame_id", "video_id", "source", "patient_id", "group_id", "frame_index", "time_s", "fold", "pixel_sha256")


def export_coco(data: DataSet, folder: Path, *, images: str, advance: Callable[[int], None]) -> int:
    """Write all kept frames below a folder; gives the number of clips.

    Raises:
        DataSetError: An image of the data set is missing or damaged, or a frame is in no split.
    """
    frames = read_table(data.folder, FRAMES)
    videos = read_table(data.folder, VIDEOS).select(["video_id", "licence", "fov_stored_geometry"]).to_pydict()
    licences = {name: number for number, name in enumerate(sorted({name for name in videos["licence"] if name}), start=1)}
    clips = dict(zip(videos["video_id"], zip(videos["licence"], videos["fov_stored_geometry"], strict=True), strict=True))
    head = {
        "info": {"description": str(data.about.get("description") or data.name), "version": data.digest},
        "licenses": [{"id": number, "name": name, "url": _url(name)} for name, number in licences.items()],
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(data.classes, start=1)],
    }
    (folder / "annotations").mkdir()
    for split, rows in by_split(data.folder, frames):
        _write_split(folder / "annotations" / f"{split}.json", head, _entries(data.folder, folder, rows, clips, licences, advance))
    copy_attribution(data, folder)
    return len(pc.unique(frames["video_id"]))


def outline(geometry: str | None, width: int, height: int) -> list[tuple[float, float]]:
    """Corners (x, y) of what a field of view covers of a picture; of the whole picture where there is no field of view.

    COCO counts from the picture's upper left corner, where a geometry counts from the centre of the first pixel.
    """
    picture = Rectangle(0, 0, width, height)
    corners = [] if geometry is None else clipped(geometry_from(geometry).polygon(), picture)
    return [(round(x + 0.5, 2) + 0.0, round(y + 0.5, 2) + 0.0) for x, y in corners or picture.polygon()]


def _entries(
    dataset: Path,
    folder: Path,
    rows: pa.Table,
    clips: dict[str, tuple[str | None, str | None]],
    licences: dict[str, int],
    advance: Callable[[int], None],
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Copy the images; of each its entry, and its annotation where it has a label."""
    before, shape = None, {}
    for number, row in enumerate(_rows(rows), start=1):
        content = stored_png(dataset, row["path"], row["width"], row["height"])
        name = str(PurePosixPath(row["path"]).relative_to("images")) if row["path"].startswith("images/") else row["path"]
        target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        licence, geometry = clips.get(row["video_id"], (None, None))
        entry = {"id": number, "file_name": name, "width": row["width"], "height": row["height"]}
        entry |= {"license": licences[licence]} if licence else {}
        entry |= {fact: row[fact] for fact in _FACTS}
        annotation = None
        if row["label_index"] is not None:
            key = (geometry, row["width"], row["height"])
            if key != before:
                before, shape = key, _shape(*key)
            annotation = {"id": number, "image_id": number, "category_id": row["label_index"] + 1, "iscrowd": 0, **shape}
        advance(1)
        yield entry, annotation


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1_000):
        yield from batch.to_pylist()


def _shape(geometry: str | None, width: int, height: int) -> dict[str, Any]:
    """An annotation's outline, box and area."""
    corners = outline(geometry, width, height)
    columns, rows = [x for x, _ in corners], [y for _, y in corners]
    area = sum(corners[k - 1][0] * y - x * corners[k - 1][1] for k, (x, y) in enumerate(corners)) / 2
    return {
        "segmentation": [[value for corner in corners for value in corner]],
        "bbox": [min(columns), min(rows), round(max(columns) - min(columns), 2), round(max(rows) - min(rows), 2)],
        "area": round(abs(area), 2),
    }


def _url(licence: str) -> str:
    known = known_licence(licence)
    return "" if known is None else known.url


def _write_split(path: Path, head: dict[str, Any], entries: Iterator[tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
    """One JSON object, its images and annotations a line each; annotations wait in a file beside it until the images are written."""
    waiting = path.with_suffix(".part")
    with path.open("w", encoding="utf-8") as file, waiting.open("w+", encoding="utf-8") as annotations:
        opening = json.dumps(head, ensure_ascii=False, sort_keys=True)
        file.write(opening[:-1] + ', "images": [')
        first = first_annotation = True
        for entry, annotation in entries:
            file.write(("\n" if first else ",\n") + json.dumps(entry, ensure_ascii=False))
            first = False
            if annotation is not None:
                annotations.write(("\n" if first_annotation else ",\n") + json.dumps(annotation, ensure_ascii=False))
                first_annotation = False
        file.write('\n], "annotations": [')
        annotations.seek(0)
        for line in annotations:
            file.write(line)
        file.write("\n]}\n")
    waiting.unlink()
