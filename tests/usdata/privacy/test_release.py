"""Nothing that identifies a patient is in the bytes of a data set: DICOM files with planted identifiers, built with a secret, searched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from usdata import manifest
from usdata.building import build
from usdata.errors import UserError
from usdata.phantoms.clips import plan, render
from usdata.phantoms.encoding import write_clip
from usdata.recipe import Recipe

SECRET = "a secret of more than sixteen bytes"
PLANTED = {
    "PatientID": "MRN0047110815",
    "PatientName": "Featherstonehaugh^Wilhelmina",
    "OtherPatientNames": "Cholmondeley^Mina",
    "PatientBirthDate": "19310417",
    "StudyDate": "20210223",
    "AccessionNumber": "ACC99887766",
    "StudyID": "ST55512",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.11111111111111111",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.22222222222222222",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.33333333333333333",
    "InstitutionName": "Saint Elsewhere Hospital",
    "ReferringPhysicianName": "Mountbatten^Xaver",
    "OperatorsName": "Quisling^Ottokar",
    "DeviceSerialNumber": "SN7654321",
    "StationName": "ROOM-XYZ42",
    "PatientComments": "daughter called Hildegardis",
    "ImageComments": "see letter of Hildegardis",
}
SAFE = {
    "PatientSex": "F",
    "PatientAge": "091Y",
    "Manufacturer": "ACME",
    "ManufacturerModelName": "Scanner 9",
    "TransducerType": "CURVED LINEAR",
}


def pictures_of(number: int) -> NDArray[np.uint8]:
    """Frames of a phantom, (frames, height, width, RGB)."""
    return render(plan(videos=4, seed=0, frames=12)[number])[0]


def dicom(path: Path, *, seed: int = 0, **changes: str) -> None:
    pictures = np.ascontiguousarray(pictures_of(seed)[:10])
    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    file.file_meta.MediaStorageSOPInstanceUID = PLANTED["SOPInstanceUID"]
    for keyword, text in (PLANTED | SAFE | changes).items():
        setattr(file, keyword, text)
    file.DepthOfScanField = "140"
    file.FrameTime = "40"
    file.NumberOfFrames, file.Rows, file.Columns = pictures.shape[0], pictures.shape[1], pictures.shape[2]
    file.SamplesPerPixel, file.PhotometricInterpretation = (3, "RGB") if pictures.ndim == 4 else (1, "MONOCHROME2")
    if pictures.ndim == 4:
        file.PlanarConfiguration = 0
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = pictures.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def recipe(**changes: Any) -> Recipe:
    source = {"name": "ward", "layout": "files", **changes.pop("source", {})}
    return Recipe.model_validate({"name": "set", "sources": [source], **changes})


RELEASE = {"release": True, "image": {"crop": "mask"}, "field_of_view": {"unsure": "hold"}}


def forms() -> list[str]:
    """Every planted identifier, as it stands and as people write it."""
    texts = []
    for keyword, text in PLANTED.items():
        texts += text.split("^") if "Name" in keyword and "^" in text else [text]
    texts += ["1931-04-17", "2021-02-23", "17.04.1931", "Hildegardis", "Elsewhere", "091Y"]
    return texts


@pytest.fixture
def with_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USDATA_SECRET", SECRET)


@pytest.mark.parametrize("settings", [RELEASE, {"source": {"paths": "pseudonym"}}], ids=["release", "paths"])
@pytest.mark.usefixtures("with_secret")
def test_no_planted_identifier_is_in_the_bytes_of_the_set(tmp_path: Path, settings: dict[str, Any]) -> None:
    raw = tmp_path / "raw"
    dicom(raw / "Featherstonehaugh_Wilhelmina" / "20210223" / f"{PLANTED['SOPInstanceUID']}.dcm")
    dicom(raw / "Featherstonehaugh_Wilhelmina" / "other.dcm", seed=1)
    dicom(raw / "MRN0047110816.dcm", seed=2, PatientID="MRN0047110816", StudyInstanceUID="1.2.3.4.5.6.7", PatientName="Majoribanks")
    write_clip(raw / "Cholmondeley.mp4", pictures_of(3), fps=20)
    (raw / "Featherstonehaugh.mp4").write_bytes(b"no video at all")
    (raw / "letter to Wilhelmina.txt").write_text("Dear Mina")
    out = tmp_path / "set"
    build(recipe(**settings), raw=raw, out=out, workers=1)
    everything = [path for path in sorted(out.rglob("*")) if path.is_file()]
    found = []
    for text in [*forms(), "Majoribanks", "MRN0047110816", "Cholmondeley", str(tmp_path), SECRET]:
        for path in everything:
            for form in {text.encode(), text.casefold().encode(), text.upper().encode(), text.encode("utf-16-le")}:
                if form in path.read_bytes() or form.decode("latin-1") in str(path.relative_to(out)):
                    found.append((text, str(path.relative_to(out))))
    # Parquet's strings are compressed: they are read as well.
    for name in manifest.SCHEMAS:
        cells = json.dumps(manifest.read_table(out, name).to_pydict(), default=str).casefold()
        found += [(text, name) for text in [*forms(), "Majoribanks", "MRN0047110816", "Cholmondeley"] if text.casefold() in cells]
    assert found == []
    dataset = manifest.open_dataset(out)
    videos = dataset.videos
    assert len(videos) == 6
    dicoms = videos[videos["container"] == "dicom"]
    assert dicoms["patient_id"].nunique() == 2
    assert sorted(dicoms["group_id"].value_counts()) == [1, 2]
    assert set(dicoms["patient_age"]) == {"90+"}
    assert set(dicoms["patient_sex"]) == {"F"}
    assert set(dicoms["study_year"]) == {2021}
    assert set(dicoms["probe"]) == {"convex"}
    assert set(dicoms["depth_mm"]) == {140.0}
    assert set(dicoms["device"]) == {"Scanner 9"}
    privacy = dataset.about["privacy"]
    assert privacy["standard"] == "DICOM PS3.15 Annex E"
    assert "113100" in {method["code"] for method in privacy["methods"]}
    assert privacy["release"] == ("release" in settings)


def test_patient_ids_of_headers_are_refused_without_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USDATA_SECRET", raising=False)
    monkeypatch.delenv("USDATA_SECRET_FILE", raising=False)
    dicom(tmp_path / "raw" / "a.dcm")
    with pytest.raises(UserError, match=r"no secret is set.*make one with") as error:
        build(recipe(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()


def test_header_without_a_patient_needs_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USDATA_SECRET", raising=False)
    dicom(tmp_path / "raw" / "a.dcm", PatientID="", StudyInstanceUID="", PatientName="")
    assert build(recipe(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1).counts["ok"] == 1


@pytest.mark.usefixtures("with_secret")
@pytest.mark.parametrize("name", ["Wilhelmina.dcm", "1931-04-17/a.dcm", "mrn0047110815.dcm", f"{PLANTED['SOPInstanceUID']}.dcm"])
def test_identifiers_of_headers_are_found_in_paths(tmp_path: Path, name: str) -> None:
    dicom(tmp_path / "raw" / name)
    with pytest.raises(UserError, match=r"private id.*paths: pseudonym"):
        build(recipe(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)


@pytest.mark.usefixtures("with_secret")
def test_release_that_keeps_paths_refuses_those_that_look_private(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write_clip(tmp_path / "raw" / "2019-03-04.mp4", pictures_of(0), fps=20)
    with pytest.raises(UserError, match="holds a date"):
        build(recipe(**RELEASE, source={"paths": "keep"}), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)


@pytest.mark.usefixtures("with_secret")
def test_device_that_holds_an_identifier_is_left_out(tmp_path: Path) -> None:
    dicom(tmp_path / "raw" / "a.dcm", ManufacturerModelName="cart of Wilhelmina")
    build(recipe(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    row = manifest.open_dataset(tmp_path / "set").videos.iloc[0]
    assert pd.isna(row["device"])
    assert "device: held an identifier, left out" in list(row["notes"])


def test_another_secret_is_another_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom(tmp_path / "raw" / "a.dcm")
    ids = []
    for secret in (SECRET, SECRET[::-1]):
        monkeypatch.setenv("USDATA_SECRET", secret)
        result = build(recipe(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1, overwrite=True)
        assert not result.unchanged
        ids.append(manifest.open_dataset(tmp_path / "set").videos["patient_id"][0])
    assert len(set(ids)) == 2
    assert build(recipe(), raw=tmp_path / "raw", out=tmp_path / "set", workers=1).unchanged


def test_ids_of_public_sets_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USDATA_SECRET", raising=False)
    dicom(tmp_path / "raw" / "a.dcm")
    build(recipe(source={"patient_ids": "public"}), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    assert manifest.open_dataset(tmp_path / "set").videos["patient_id"][0] == PLANTED["PatientID"]
