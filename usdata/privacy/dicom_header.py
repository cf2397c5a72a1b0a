"""What a DICOM header tells of a person: read to group clips and to know what must not leave, never written as it stands.

In: a header. Out: the patient's id and the study for pseudonyms, every identifier for the scan of what leaves, and the few facts that may
leave: sex, age band, year of the study, depth, kind of probe (DICOM PS3.15 Annex E, with the options that `statement` names).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from usdata.privacy.identifiers import Identifiers
from usdata.readers.dicom_facts import decimals, value_of

OLDEST = 90  # years: from here on an age alone can be a name
_IDS = ("PatientID", "OtherPatientIDs")
_NUMBERS = ("AccessionNumber", "StudyID", "DeviceSerialNumber", "StationName", "AdmissionID", "ServiceEpisodeID")
_NAMES = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName", "PerformingPhysicianName",
    "OperatorsName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "ResponsiblePerson",
)  # fmt: skip
_DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_DAY = re.compile(r"(\d{4})(\d{2})(\d{2})")


@dataclass(frozen=True)
class Person:
    """Whose clip it is.

    Attributes:
        patient: Issuer and id, to be made a pseudonym of; None where the header gives none.
        study: The study's unique identifier, likewise.
        facts: patient_sex, patient_age, study_year, depth_mm, probe: those that the header gives, as text.
        burned_in: The header says that there is a person's data in the pixels.
    """

    patient: str | None = None
    study: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    burned_in: bool = False


def person_of(path: Path, header: Dataset, identifiers: Identifiers) -> Person:
    """Read a header's person; everything that identifies is added to `identifiers`.

    Args:
        path: The file, for errors.
        header: As pydicom parsed it, without the pixels.
        identifiers: Grows.
    """

    def texts(keyword: str) -> list[str]:
        value = value_of(path, header, keyword)
        several = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
        return [text for each in several if each is not None and (text := str(each).replace("\0", " ").strip())]

    for keywords, add in (
        (_IDS, identifiers.add_id),
        (_NUMBERS, identifiers.add_number),
        (_NAMES, identifiers.add_name),
        (_DATES, identifiers.add_date),
        (_UIDS, identifiers.add_number),
    ):
        for keyword in keywords:
            for text in texts(keyword):
                add(text)
    for text in texts("InstitutionName"):
        identifiers.add_number(text)
    patient = next(iter(texts("PatientID")), None)
    issuer = next(iter(texts("IssuerOfPatientID")), None)
    first = {keyword: next(iter(texts(keyword)), "") for keyword in ("PatientSex", "PatientAge", *_DATES, "TransducerType")}
    day = next((first[keyword] for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate") if first[keyword]), "")
    depth = decimals(path, header, "DepthOfScanField")
    known = {
        "patient_sex": first["PatientSex"][:1].upper() if first["PatientSex"][:1].upper() in ("F", "M", "O") else None,
        "patient_age": age_band(first["PatientAge"], first["PatientBirthDate"], day),
        "study_year": found[1] if (found := _DAY.fullmatch(day.replace(".", ""))) and 1970 <= int(found[1]) <= 2100 else None,
        "depth_mm": str(float(depth[0])) if depth and depth[0] is not None and 0 < depth[0] < 1000 else None,
        "probe": _probe(first["TransducerType"]),
    }
    return Person(
        patient=None if patient is None else patient if issuer is None else f"{issuer}^{patient}",
        study=next(iter(texts("StudyInstanceUID")), None),
        facts={key: text for key, text in known.items() if text is not None},
        burned_in=next(iter(texts("BurnedInAnnotation")), "").upper() == "YES",
    )


def age_band(age: str, born: str = "", examined: str = "") -> str | None:
    """Ten years of age, "90+" from ninety on; None where neither the age nor the two dates tell.

    Args:
        age: DICOM's age string: three digits and D, W, M or Y.
        born: YYYYMMDD.
        examined: YYYYMMDD.
    """
    if match := _AGE.fullmatch(age):
        years = int(match[1]) // {"D": 365, "W": 52, "M": 12, "Y": 1}[match[2]]
    elif (first := _DAY.fullmatch(born)) and (then := _DAY.fullmatch(examined)):
        months = tuple(int(each) for each in first.groups()), tuple(int(each) for each in then.groups())
        years = months[1][0] - months[0][0] - (months[1][1:] < months[0][1:])
    else:
        return None
    if not 0 <= years <= 130:
        return None
    return f"{OLDEST}+" if years >= OLDEST else f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def _probe(transducer_type: str) -> str | None:
    """PS3.3 C.8.5.5.1.10 and what scanners write: the shape in the words of the field."""
    words = transducer_type.upper()
    return next((shape for part, shape in (("PHASED", "phased"), ("CURVED", "convex"), ("LINEAR", "linear")) if part in words), None)
