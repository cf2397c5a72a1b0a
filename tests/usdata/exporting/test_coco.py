"""What `pycocotools` reads: images, categories, the field of view as an outline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import usdata
from tests.usdata.exporting.odd_set import CLASSES, SECTOR, SPLITS, odd_set, stored_pixels
from usdata.duplicates.fingerprints import pixel_digest
from usdata.exporting.coco import outline
from usdata.imaging.geometry import geometry_from


def opened(folder: Path, split: str, capsys: pytest.CaptureFixture[str]) -> Any:
    library = pytest.importorskip("pycocotools.coco")
    coco = library.COCO(str(folder / "annotations" / f"{split}.json"))
    capsys.readouterr()
    return coco


@pytest.mark.parametrize("labelled", [True, False])
def test_images_labels_splits_and_groups_come_back(labelled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = odd_set(tmp_path / "set", labelled=labelled)
    out = usdata.export(dataset, to="coco", out=tmp_path / "out").out
    data = usdata.load(dataset)
    for split in SPLITS:
        coco = opened(out, split, capsys)
        rows = data.frames[data.frames.split == split]
        images = coco.loadImgs(sorted(coco.getImgIds()))
        assert [image["frame_id"] for image in images] == list(rows.frame_id)
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == data.classes
        for image, row in zip(images, rows.itertuples(), strict=True):
            pixels = stored_pixels(out / "images", image["file_name"])
            assert np.array_equal(pixels, stored_pixels(dataset, str(row.path)))
            assert pixel_digest(pixels) == image["pixel_sha256"]
            assert (image["group_id"], image["time_s"], image["fold"]) == (row.group_id, row.time_s, row.fold)
            labels = [coco.cats[entry["category_id"]]["name"] for entry in coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))]
            assert labels == ([row.label] if isinstance(row.label, str) else [])


# numpy 2 warns of how pycocotools hands over its array.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_the_outline_is_the_field_of_view(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = opened(usdata.export(odd, to="coco", out=tmp_path / "out").out, "train", capsys)
    annotation = coco.loadAnns(coco.getAnnIds())[0]
    theirs, ours = coco.annToMask(annotation).astype(bool), geometry_from(SECTOR).mask(48, 64)
    # Their raster and ours differ by single pixels along the edge.
    assert (theirs & ours).sum() / (theirs | ours).sum() > 0.95
    assert abs(annotation["area"] / ours.sum() - 1) < 0.02
    left, top, width, height = annotation["bbox"]
    rows, columns = np.nonzero(ours)
    found, expected = (left, top, left + width, top + height), (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.subtract(found, expected)).max() <= 1


def test_without_a_field_of_view_or_with_one_outside_it_is_the_whole_picture() -> None:
    picture = [(0, 0), (64, 0), (64, 48), (0, 48)]
    assert outline(None, 64, 48) == picture
    assert outline(SECTOR.replace('"apex_y": -10.0', '"apex_y": 900.0'), 64, 48) == picture


def test_equal_sets_give_equal_bytes_and_plain_json(odd: Path, tmp_path: Path, bytes_of: Callable[[Path], dict[str, bytes]]) -> None:
    twins = [bytes_of(usdata.export(odd, to="coco", out=tmp_path / name).out) for name in ("one", "two")]
    assert twins[0] == twins[1]
    about = json.loads(twins[0]["annotations/val.json"])
    assert about["annotations"] == []
    assert [category["name"] for category in about["categories"]] == sorted(CLASSES)
    assert [licence["name"] for licence in about["licenses"]] == ["CC BY 4.0", "cc-by-nc-sa_4.0", "of <our> own"]
