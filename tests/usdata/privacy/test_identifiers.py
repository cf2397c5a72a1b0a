"""Identifiers are found in the forms in which people write them, and ordinary words are not taken for them."""

from __future__ import annotations

import random
import string

import pytest

from usdata.privacy.dicom_header import age_band
from usdata.privacy.identifiers import Identifiers, looks_private


def met() -> Identifiers:
    identifiers = Identifiers()
    identifiers.add_id("MRN-004711")
    identifiers.add_id("7")
    identifiers.add_name("MÜLLER^Eva Lee^^Dr.")
    identifiers.add_date("19610307")
    identifiers.add_number("1.2.840.113619.2.1")
    return identifiers


@pytest.mark.parametrize(
    "path",
    [
        "scans/mrn-004711/a.mp4", "scan_7.mp4", "müller.avi", "Mueller_MÜLLERS_clip.avi", "lee-liver.mp4", "a_LEE_b.mp4", "x1961-03-07.mp4",
        "07.03.1961/a.mp4", "1.2.840.113619.2.1.dcm", "ward/eva/1.mp4",
    ],
)  # fmt: skip
def test_found_in_paths(path: str) -> None:
    assert met().in_path(path)


@pytest.mark.parametrize(
    "path", ["sleepy/clip_17.mp4", "medieval.mp4", "evaluation/1.mp4", "drive.mp4", "19610308.mp4", "70.avi", "mrn/4711.mp4"]
)
def test_not_found_in_paths(path: str) -> None:
    assert not met().in_path(path)


def test_short_id_is_looked_for_in_paths_alone() -> None:
    assert met().in_path("x/7/y.avi")
    assert not met().in_text("grade=7")
    assert met().in_text("seen by Eva")


def test_placeholders_of_removed_names_are_no_names() -> None:
    identifiers = Identifiers()
    for name in ("Anonymized", "ANON^PATIENT", "XXXXXXXX", "--", ""):
        identifiers.add_name(name)
    assert not identifiers


def test_equal_to_brute_force() -> None:
    rng = random.Random(5)
    for _ in range(300):
        ids = {"".join(rng.choices("abc", k=rng.randint(3, 5))) for _ in range(rng.randint(1, 20))}
        identifiers = Identifiers()
        for each in sorted(ids):
            identifiers.add_id(each)
        text = "".join(rng.choices("abcx", k=rng.randint(0, 30)))
        assert identifiers.in_text(text) == any(each in text for each in ids)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("2019-03-04/a.mp4", "a date"), ("x_20190304_1.avi", "a date"), ("04.03.2019.avi", "a date (day first)"),
        ("1.2.840.10008.5.1.dcm", "a unique identifier"),
        ("eva@clinic.org.mp4", "an e-mail address"), ("scan12345678.mp4", "a number as long as a record's"),
        ("clip_0012.mp4", None), ("20199999.x/IM0001", "a number as long as a record's"), ("v1.2.3/a.mp4", None),
    ],
)  # fmt: skip
def test_looks(path: str, words: str | None) -> None:
    assert looks_private(path) == words


@pytest.mark.parametrize(
    ("age", "born", "examined", "band"),
    [
        ("045Y", "", "", "40-49"), ("089Y", "", "", "80-89"), ("090Y", "", "", "90+"), ("113Y", "", "", "90+"), ("011M", "", "", "0-9"),
        ("400D", "", "", "0-9"), ("", "19500630", "20200629", "60-69"), ("", "19500630", "20200630", "70-79"), ("", "", "20200630", None),
        ("", "20210101", "20200101", None), ("forty", "", "", None), ("999Y", "", "", None),
    ],
)  # fmt: skip
def test_age_bands(age: str, born: str, examined: str, band: str | None) -> None:
    assert age_band(age, born, examined) == band


def test_cost_does_not_grow_with_the_number_of_identifiers() -> None:
    rng = random.Random(1)
    identifiers = Identifiers()
    for _ in range(200_000):
        identifiers.add_id("".join(rng.choices(string.digits, k=9)))
    assert not any(identifiers.in_path(f"clips/patient {number}/scan.mp4") for number in range(3_000))
