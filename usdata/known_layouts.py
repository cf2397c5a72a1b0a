"""How known sources name clips, patients and labels on disk: each a set of a source's keys with the tree that it is for.

`layout: clust` in a recipe fills in what the recipe does not say itself; `table` and `files` are the general ones and fill in nothing.
As data and not as code, a layout can be read, printed, overridden key by key, and every file is still accounted for in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNLABELLED = "unlabelled"  # the prefix of folders of clips without a class
US4_PREFIX = "Rb[1-5]|F[0-4]_|Reg|Cov|Ali|Bli|Ple|Oth"
# A prefix of US-4 that ends as a word, or whatever stands before the first dash.
US4_FOLDER = rf"(?:^|/)(?P<name>(?:{UNLABELLED}(?=-)|(?P<label>F[0-4]_|(?:Rb[1-5]|Reg|Cov|Ali|Bli|Ple|Oth)(?![A-Za-z])|[^/-]+(?=-)))[^/]*)$"


@dataclass(frozen=True)
class KnownLayout:
    """A layout by name.

    Attributes:
        about: What it is for, one sentence.
        tree: Example paths below the source's root.
        settings: Keys of a recipe's source that it fills in.
    """

    about: str
    tree: tuple[str, ...]
    settings: Mapping[str, Any]


KNOWN_LAYOUTS: dict[str, KnownLayout] = {
    "class-folders": KnownLayout(
        "One folder a class; every media file anywhere below it is a clip of that class.",
        ("healthy/a.mp4", "ill/ward 3/b.avi"),
        {"pattern": r"^(?P<label>[^/]+)/"},
    ),
    "us4-clips": KnownLayout(
        "Raw clips whose names begin with a prefix of US-4; a folder with a patient's running number may stand around them.",
        ("Reg-1.mp4", "patient_007/Bli-0123.avi", "F3_-45.mp4"),
        {
            "pattern": rf"(?:^|/)(?:[Pp]atient[-_ ]?(?P<patient>[0-9]{{1,4}})/)?(?P<label>{US4_PREFIX})[^/]*$",
            "patient_ids": "public",
            "asides": [{"pattern": r"_frame[0-9]+\.[a-z]+$", "reason": "an extracted frame: see the recipe 'us4-folders'"}],
        },
    ),
    "us4-folders": KnownLayout(
        "US-4 as its authors publish it: one folder of extracted frames a clip, the class before the first dash ('unlabelled': none).",
        ("Cov-12_mp4/Cov-12_mp4_frame0.jpg", "F0_-3_avi/F0_-3_avi_frame8.jpg"),
        {
            "unit": "folder",
            "pattern": US4_FOLDER,
            "sampling": {"rule": "all"},
        },
    ),
    "clust": KnownLayout(
        "CLUST: one folder a sequence, numbered PNG of 4 or 5 digits in its Data, tracked points in Annotation. "
        "How US-4 gave the five classes Rb1 to Rb5 was not published: a sequence has one where its folder's name begins with it.",
        ("ETH-01/Data/0001.png", "ETH-01/Annotation/ETH-01_1.txt", "Rb2-MED-03/Data/00001.png"),
        {
            "unit": "folder",
            "pattern": r"^(?P<name>(?:.*/)?(?P<label>Rb[1-5])?[^/]*)/Data$",
            "constants": {"organ": "liver"},
            "asides": [{"pattern": r"(?:^|/)Annotations?/", "reason": "points to be tracked (CLUST's annotation), not a clip"}],
        },
    ),
    "pocus": KnownLayout(
        "POCUS: the class is the first letters of a file's name, the probe is the folder.",
        ("pocus_videos/convex/Cov-Atlas+(44).gif", "pocus_images/linear/Reg_a.jpg"),
        {
            "pattern": r"(?:^|/)(?:(?P<probe>convex|linear)/)?(?P<label>[Cc]ov|[Pp]neu|[Rr]eg|[Vv]ir)[^/]*$",
            "label_map": {
                **{"Cov": "covid", "cov": "covid", "Pneu": "bacterial_pneumonia", "pneu": "bacterial_pneumonia"},
                **{"Reg": "regular", "reg": "regular", "Vir": "viral_pneumonia", "vir": "viral_pneumonia"},
            },
            "constants": {"organ": "lung"},
            "asides": [{"pattern": r"(?:^|/)label_uncertain/", "reason": "its label is uncertain, its authors say"}],
        },
    ),
    "covid-blues": KnownLayout(
        "COVID-BLUES: patient and place on the chest stand in a clip's name; its tables can be named besides.",
        ("lus_videos/patient_12_L1.mp4",),
        {
            "pattern": r"(?:^|/)patient_(?P<patient>[0-9]+)_(?P<view>[LR][0-9])[^/]*$",
            "names": "stem",
            "patient_ids": "public",
            "constants": {"organ": "lung", "probe": "convex", "manufacturer": "Philips", "licence": "CC BY-NC-ND 4.0"},
        },
    ),
    "echonet": KnownLayout(
        "EchoNet-Dynamic: FileList.csv names the clips in Videos, without suffix; measures and the published split stay in labels.",
        ("FileList.csv", "Videos/0X1A0A263B22CCD966.avi"),
        {
            "table": "FileList.csv",
            "columns": {"path": "FileName"},
            "path_template": "Videos/{}.avi",
            "label_columns": ["EF", "ESV", "EDV", "Split"],
            "names": "stem",
            "constants": {"organ": "heart"},
            "asides": [{"pattern": r"(?:^|/)VolumeTracings\.csv$", "reason": "tracings of the left ventricle, not a clip"}],
        },
    ),
    "camus": KnownLayout(
        "CAMUS in NIfTI: one folder a patient, a half-cycle sequence of each view; what its Info file says stays in labels.",
        ("patient0001/patient0001_2CH_half_sequence.nii.gz", "patient0001/Info_2CH.cfg"),
        {
            "pattern": r"(?:^|/)(?P<patient>patient[0-9]+)/(?P=patient)_(?P<view>2CH|4CH)_half_sequence\.nii(?:\.gz)?$",
            "facts_file": "Info_{view}.cfg",
            "label_columns": ["ImageQuality", "EF"],
            "patient_ids": "public",
            "names": "stem",
            "constants": {"organ": "heart"},
            "asides": [
                {"pattern": r"_gt\.nii(?:\.gz)?$", "reason": "a segmentation mask, not a clip"},
                {"pattern": r"_E[DS]\.nii(?:\.gz)?$", "reason": "one frame of the sequence beside it"},
            ],
        },
    ),
}


def filled_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """A source's keys with those of its named layout where it says nothing itself; mappings are joined key by key.

    `label_map: null` in a recipe keeps the labels as they stand in the names.
    """
    layout = KNOWN_LAYOUTS.get(str(given.get("layout")))
    result: dict[str, Any] = dict(given)
    for key, value in layout.settings.items() if layout is not None else ():
        if key in ("constants", "columns") and isinstance(given.get(key), Mapping):
            result[key] = {**value, **given[key]}
        else:
            result.setdefault(key, value)
    return result
