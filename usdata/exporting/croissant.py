"""Croissant metadata (JSON-LD, version 1.0) of a data set: what search engines and `mlcroissant` read.

In: a data set. Out: `croissant.json`, which names every file by a path relative to itself, with sizes and digests, and gives each table's
columns their type and meaning. Guarantees: it says what the manifest says and nothing more: no date, address or version that the set does
not know. `export_manifest` puts it beside copies of the tables, byte for byte, so that the set's digest still holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from usdata import manifest
from usdata.errors import DataSetError
from usdata.exporting.licences import clips_by_licence, copy_attribution, known_licence, known_sources
from usdata.exporting.responsible_ai import responsible_ai
from usdata.files import sha256_file, write_json
from usdata.manifest import DATASET_JSON, DUPLICATES, EXCLUDED, FRAMES, SCHEMAS, VIDEOS, DataSet

CROISSANT = "croissant.json"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]

# The context that the specification of 1.0 gives, with the vocabulary of responsible AI.
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract",
    "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5",
    "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex",
    "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
_TYPES = {
    pa.string(): "sc:Text",
    pa.int64(): "cr:Int64",
    pa.int32(): "cr:Int32",
    pa.float64(): "cr:Float64",
    pa.bool_(): "sc:Boolean",
}
_TABLES = {
    VIDEOS: "a row per source clip, the failed and excluded ones too",
    FRAMES: "a row per kept frame: where it comes from, its label, its split, its place",
    EXCLUDED: "a row per frame that was looked at and not kept, with the reason",
    DUPLICATES: "a row per pair of clips that show the same scan",
}
_KEYS = {VIDEOS: "video_id", FRAMES: "frame_id"}
_REFERENCES = {
    (FRAMES, "video_id"): "videos/video_id",
    (EXCLUDED, "video_id"): "videos/video_id",
    (DUPLICATES, "video_id_a"): "videos/video_id",
}


def export_croissant(data: DataSet, folder: Path, *, images: str, advance: Callable[[int], None]) -> int:
    """Write `croissant.json` alone, to be put into the set, whose images it describes too; gives the number of clips.

    Raises:
        DataSetError: A table is missing, or the tables are not those that dataset.json was written for.
    """
    _check_digest(data)
    write_json(folder / CROISSANT, croissant(data, pictures=True))
    return _clips(data, advance)


def export_manifest(data: DataSet, folder: Path, *, images: str, advance: Callable[[int], None]) -> int:
    """Write what may be published where the pictures may not: dataset.json, the tables, and `croissant.json`; gives the number of clips.

    Raises:
        DataSetError: A table is missing, or the tables are not those that dataset.json was written for.
    """
    _check_digest(data)
    for name in (DATASET_JSON, *sorted(SCHEMAS)):
        shutil.copyfile(data.folder / name, folder / name)
    copy_attribution(data, folder)
    write_json(folder / CROISSANT, croissant(data, pictures=False))
    return _clips(data, advance)


def croissant(data: DataSet, *, pictures: bool) -> dict[str, Any]:
    """The metadata as JSON.

    Args:
        data: The data set.
        pictures: Whether the images stand beside it.
    """
    licences = clips_by_licence(data.videos[data.videos["frames_kept"] > 0])
    named = [(known_licence(name), name) for name in licences if name is not None]
    about = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": data.name,
        "description": str(data.about.get("description") or f"{data.name}: frames of ultrasound clips, with a manifest."),
        "keywords": sorted({"ultrasound", *data.videos["organ"].dropna(), *data.classes}),
        "identifier": f"sha256:{data.digest}",
        "license": [
            *(name if known is None else known.url for known, name in named),
            # No licence of the others is one of these clips.
            *([f"none is given for {licences[None]:,} of {sum(licences.values()):,} clips"] if None in licences else []),
        ],
        "citeAs": "\n".join(entry.citation for entry in known_sources(data)),
        "distribution": [_file(data.folder, name) for name in (DATASET_JSON, *sorted(SCHEMAS))],
        "recordSet": [_table(name, labelled=bool(data.classes)) for name in _TABLES],
        **responsible_ai(data),
    }
    if data.classes:
        about["recordSet"].append(_labels(data.classes))
    if pictures:
        about["distribution"].append(_IMAGES)
        about["recordSet"].append(_PICTURES)
    return {key: value for key, value in about.items() if value not in ("", [])}


_IMAGES = {
    "@type": "cr:FileSet",
    "@id": "images",
    "name": "images",
    "description": "The kept frames, a PNG each; the masks and key frames that stand beside them are not among these.",
    "encodingFormat": "image/png",
    "includes": "images/**/*_frame[0-9]*.png",
    "cr:excludes": ["images/**/*_overlays.png", "images/**/*_key_frames.png"],
}
_PICTURES = {
    "@type": "cr:RecordSet",
    "@id": "images_of_frames",
    "name": "images_of_frames",
    "description": "The pictures; 'path' is that of frames.parquet.",
    "key": {"@id": "images_of_frames/path"},
    "field": [
        {
            "@type": "cr:Field",
            "@id": "images_of_frames/path",
            "name": "path",
            "description": "of the stored image, relative to the data set",
            "dataType": "sc:Text",
            "source": {"fileSet": {"@id": "images"}, "extract": {"fileProperty": "fullpath"}},
        },
        {
            "@type": "cr:Field",
            "@id": "images_of_frames/image",
            "name": "image",
            "description": "the stored image",
            "dataType": "sc:ImageObject",
            "source": {"fileSet": {"@id": "images"}, "extract": {"fileProperty": "content"}},
        },
    ],
}


def _file(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": _TABLES.get(name, "name, recipe, digests, classes, counts, versions and licences of the set"),
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/json" if name == DATASET_JSON else "application/x-parquet",
        "sha256": sha256_file(path),
    }


def _table(name: str, *, labelled: bool) -> dict[str, Any]:
    """The record set of a table, whose fields are those of its Arrow schema."""
    stem = name.removesuffix(".parquet")
    about: dict[str, Any] = {"@type": "cr:RecordSet", "@id": stem, "name": stem, "description": _TABLES[name]}
    if name in _KEYS:
        about["key"] = {"@id": f"{stem}/{_KEYS[name]}"}
    about["field"] = [_field(name, stem, field, labelled=labelled) for field in SCHEMAS[name]]
    return about


def _field(table: str, stem: str, field: pa.Field, *, labelled: bool) -> dict[str, Any]:
    several = pa.types.is_list(field.type)
    about: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{stem}/{field.name}",
        "name": field.name,
        "description": field.metadata[b"description"].decode(),
        "dataType": _TYPES[field.type.value_type if several else field.type],
        "source": {"fileObject": {"@id": table}, "extract": {"column": field.name}},
    }
    if several:
        about["repeated"] = True
    if (table, field.name) in _REFERENCES:
        about["references"] = {"field": {"@id": _REFERENCES[table, field.name]}}
    if labelled and field.name == "label_index":
        about["references"] = {"field": {"@id": "labels/label_index"}}
    return about


def _labels(classes: list[str]) -> dict[str, Any]:
    """The classes, as an enumeration with its values."""
    fields = (("label_index", "cr:Int64", "position of the class"), ("name", "sc:Text", "the class"))
    return {
        "@type": "cr:RecordSet",
        "@id": "labels",
        "name": "labels",
        "description": "the classes; a frame without a label has none of them",
        "dataType": "sc:Enumeration",
        "key": {"@id": "labels/label_index"},
        "field": [
            {"@type": "cr:Field", "@id": f"labels/{name}", "name": name, "description": text, "dataType": kind}
            for name, kind, text in fields
        ],
        "data": [{"labels/label_index": index, "labels/name": name} for index, name in enumerate(classes)],
    }


def _check_digest(data: DataSet) -> None:
    for name in SCHEMAS:
        manifest.read_table(data.folder, name)
    if manifest.tables_digest(data.folder) != data.digest:
        raise DataSetError(
            data.folder / DATASET_JSON, "its digest is not that of the tables beside it", "build the set again, or fetch it whole again"
        )


def _clips(data: DataSet, advance: Callable[[int], None]) -> int:
    advance(int(data.videos["frames_kept"].sum()))
    return int((data.videos["frames_kept"] > 0).sum())
