"""Croissant metadata as `mlcroissant` validates and reads it, and the manifest that is published without pictures."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import usdata
from tests.usdata.exporting.odd_set import CLASSES, odd_set, stored_pixels
from usdata import manifest
from usdata.cli import app
from usdata.errors import UserError

# Of the library's own making: an old name of rdflib's, and an argument that pandas 3 means to drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index is deprecated"),
]


def opened(folder: Path) -> Any:
    """The metadata, validated: mlcroissant raises for each error, and what it only recommends is known here."""
    library = pytest.importorskip("mlcroissant")
    dataset = library.Dataset(str(folder / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert {warning.split('"')[1].split("/")[-1] for warning in issues.warnings} <= {"citeAs", "datePublished", "version", "license"}
    return dataset


def plain(value: Any) -> Any:
    """A value of either side as Python's own: text, numbers, lists, None."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | np.ndarray):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value


def records(dataset: Any, name: str) -> list[dict[str, Any]]:
    return [{key.split("/", 1)[1]: plain(value) for key, value in record.items()} for record in dataset.records(name)]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_published_manifest_validates_and_its_records_are_the_tables_rows(labelled: bool, tmp_path: Path) -> None:
    dataset = odd_set(tmp_path / "set", labelled=labelled)
    exported = usdata.export(dataset, to="manifest", out=tmp_path / "published")
    assert (exported.clips, exported.frames) == (8, 24)
    shutil.move(exported.out, tmp_path / "elsewhere")
    found = opened(tmp_path / "elsewhere")
    for name in manifest.SCHEMAS:
        rows = [{key: plain(value) for key, value in row.items()} for row in manifest.read_table(dataset, name).to_pylist()]
        assert records(found, name.removesuffix(".parquet")) == rows, name
    if labelled:
        expected = [{"label_index": index, "name": name} for index, name in enumerate(sorted(CLASSES))]
        assert list(found.records("labels")) == [{f"labels/{key}": value for key, value in row.items()} for row in expected]


def test_put_beside_the_set_it_gives_the_pictures_too(odd: Path, tmp_path: Path) -> None:
    shutil.copytree(odd, tmp_path / "set")
    (tmp_path / "set/images/clinic/0/a_overlays.png").write_bytes(next(odd.rglob("*.png")).read_bytes())
    alone = usdata.export(tmp_path / "set", to="croissant", out=tmp_path / "out").out
    assert [path.name for path in alone.iterdir()] == ["croissant.json"]
    shutil.copy(alone / "croissant.json", tmp_path / "set")
    found = {record["path"]: record["image"] for record in records(opened(tmp_path / "set"), "images_of_frames")}
    assert sorted(found) == sorted(usdata.load(odd).frames.path)
    for path, image in found.items():
        assert np.array_equal(np.asarray(image), np.repeat(stored_pixels(odd, path)[..., None], 3, axis=2))


def test_the_published_tables_are_the_sets_own_bytes_and_open(
    odd: Path, tmp_path: Path, bytes_of: Callable[[Path], dict[str, bytes]]
) -> None:
    shutil.copytree(odd, tmp_path / "set")
    (tmp_path / "set/ATTRIBUTION.md").write_text("by us")
    out = usdata.export(tmp_path / "set", to="manifest", out=tmp_path / "published").out
    own = (manifest.DATASET_JSON, *manifest.SCHEMAS, "ATTRIBUTION.md")
    assert sorted(path.name for path in out.iterdir()) == sorted((*own, "croissant.json"))
    assert all((out / name).read_bytes() == (tmp_path / "set" / name).read_bytes() for name in own)
    data = usdata.load(out)
    assert data.digest == manifest.tables_digest(out)
    assert len(data.frames) == 24
    assert bytes_of(out) == bytes_of(usdata.export(tmp_path / "set", to="manifest", out=tmp_path / "again").out)


def test_a_private_set_is_not_handed_on_without_a_word(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usdata.export(odd, to="manifest", out=tmp_path / "public").note is None
    for release, word in ((False, "no release"), (True, None)):
        folder = tmp_path / f"release-{release}"
        shutil.copytree(odd, folder)
        about = json.loads((folder / manifest.DATASET_JSON).read_text())
        about["privacy"] = {"private_sources": ["clinic"], "release": release}
        (folder / manifest.DATASET_JSON).write_text(json.dumps(about))
        tables = usdata.export(folder, to="manifest", out=tmp_path / f"tables-{release}")
        assert "private sources (clinic) and paths, dates and ids are as it has them" in (tables.note or "")
        pictures = usdata.export(folder, to="webdataset", out=tmp_path / f"pictures-{release}")
        assert (word in (pictures.note or "")) if word else pictures.note is None
    done = CliRunner().invoke(app, ["export", str(tmp_path / "release-False"), "--to", "manifest", "--out", str(tmp_path / "told")])
    assert "note: the set has private sources (clinic)" in done.stdout


def test_it_says_what_the_manifest_knows(odd: Path, tmp_path: Path) -> None:
    about = json.loads((usdata.export(odd, to="manifest", out=tmp_path / "out").out / "croissant.json").read_text())
    *named, unknown = about["license"]
    assert re.fullmatch(r"none is given for \d+ of \d+ clips", unknown)
    assert named == [
        "https://creativecommons.org/licenses/by/4.0/",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "of <our> own",
    ]
    assert about["keywords"] == sorted({"ultrasound", "breast", *CLASSES})
    files = {entry["@id"]: entry for entry in about["distribution"]}
    assert files["frames.parquet"]["contentSize"] == f"{(odd / 'frames.parquet').stat().st_size} B"
    frames = next(entry for entry in about["recordSet"] if entry["@id"] == "frames")
    assert [field["name"] for field in frames["field"]] == manifest.FRAMES_SCHEMA.names
    assert "8 ultrasound clips: 8 used" in about["rai:dataCollectionRawData"]
    assert "label of 2" in about["rai:dataCollectionMissingData"]
    assert "licence of 2" in about["rai:dataCollectionMissingData"]
    assert "6 of 8 clips have one" in about["rai:dataAnnotationProtocol"][0]
    assert about["rai:dataBiases"][0] == f"Class {min(CLASSES)}: 12 frames of 4 clips from 1 source."


@pytest.mark.parametrize("to", ["manifest", "croissant"])
def test_tables_that_are_not_the_descriptions_are_refused(to: str, odd: Path, tmp_path: Path) -> None:
    shutil.copytree(odd, tmp_path / "set")
    rows = manifest.read_table(odd, manifest.FRAMES).slice(0, 20)
    manifest.write_table(tmp_path / "set", manifest.FRAMES, rows, recipe_digest="ab" * 32)
    with pytest.raises(UserError, match="its digest is not that of the tables beside it"):
        usdata.export(tmp_path / "set", to=to, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
