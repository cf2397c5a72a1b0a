"""What dataset.json says of privacy: what was done, in the words and codes of DICOM PS3.15 Annex E, and what was not."""

from __future__ import annotations

from typing import Any

from usdata.recipe import Recipe


def statement(recipe: Recipe) -> dict[str, Any]:
    """The object `privacy` of dataset.json.

    Codes are those of PS3.16 CID 7050. A code stands there for what of the profile applies to what leaves: images and tables, never a DICOM
    file. A set that is no release has its pixels as they came.
    """
    private = [source.name for source in recipe.sources if source.patient_ids == "pseudonym"]
    public = [source.name for source in recipe.sources if source.patient_ids == "public"]
    methods = [
        {"code": "113100", "meaning": "Basic Application Confidentiality Profile", "how": "no attribute leaves but those named here"},
        {
            "code": "113108",
            "meaning": "Retain Patient Characteristics Option",
            "how": "sex, and age in bands of ten years, 90 and over as one",
        },
        {"code": "113109", "meaning": "Retain Device Identity Option", "how": "manufacturer and model; no serial number, no station"},
    ]
    if recipe.release:
        how = "pixels outside the field of view are zero; clips without a safe one or with text in it are held back"
        methods.append({"code": "113101", "meaning": "Clean Pixel Data Option", "how": how})
    return {
        "release": recipe.release,
        "standard": "DICOM PS3.15 Annex E",
        "methods": methods if private else [],
        "identifiers": "HMAC-SHA256 under a secret that is not in this set" if private else "as the public sources give them",
        "dates": "the year of the study alone",
        "private_sources": private,
        "public_sources": public,
    }
