"""What a data set shares with another one: patients, files, frames, scans; and where the two contradict each other.

Comes in: two data set folders. Goes out: counts, pairs and findings. Guarantees: digests are compared over all clips and frames; the same
scan under other bytes is verified frame by frame (`usdata.overlapping`), or said not to have been looked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from usdata import manifest
from usdata.auditing.finding import Finding, count
from usdata.duplicates.exact import LEAST_UNIQUE_FRAMES, MOST_CLIPS_OF_A_SCAN
from usdata.errors import UserError
from usdata.manifest import DataSet

_KINDS = {"file": "sha256", "packets": "packets_sha256", "luma": "luma_sha256"}
_COLUMNS = ("video_id", "source", "patient_id", "label", "status", "frames_unique", *_KINDS.values())
_WHAT = {"file": "clips with an equal raw file", "packets": "clips with equal coded pictures", "luma": "clips with equal decoded frames"}


def refuse_same(dataset: Path, other: Path) -> None:
    """Refuse to compare a data set with itself.

    Raises:
        UserError: Both are one folder.
    """
    if dataset.resolve() == other.resolve():
        raise UserError("--against", "names the data set itself", "'usdata overlap SET' finds what stands twice in one set")


def against(dataset: DataSet, other: DataSet, *, pictures: bool = True) -> dict[str, Any]:
    """What of a data set stands in another.

    Args:
        dataset: The one that is audited.
        other: The other one.
        pictures: Compare pictures too; without it pairs come from digests alone.

    Returns:
        `other` (its name), `by_content` (whether pictures were compared), `shared`: {"what", "number"}, numbers of the audited set;
        `patients`: {"patient", "clips", "clips_other"}; `pairs`: {"a", "b", "kind", "score", "labels", "patients", "contradict"}.
    """
    first, second = _clips(dataset), _clips(other)
    patients = _shared_patients(first, second)
    exact = _exact(dataset, first, other, second)
    shared = [{"what": "patients with one id in both", "number": len(patients)}]
    shared += [{"what": what, "number": _standing(first, second, column)} for column, what in ((_KINDS[k], _WHAT[k]) for k in _KINDS)]
    shared.append({"what": "equal stored frames", "number": int(exact.pop("frames"))})
    pairs: list[dict[str, Any]]
    if pictures:
        from usdata.overlapping import overlap

        found = overlap(dataset.folder, other.folder)
        pairs = [{"a": pair.a, "b": pair.b, "kind": pair.kind, "score": float(pair.score)} for pair in found.pairs]
    else:
        pairs = exact["pairs"]
    of_content = sum(pair["kind"] in ("content", "view") for pair in pairs)
    shared.append({"what": "pairs of clips that show the same scan under other bytes", "number": of_content})
    facts = [table.set_index("video_id")[["label", "patient_id"]].to_dict("index") for table in (first, second)]
    vocabularies = [{_word(label) for label in table["label"].dropna()} for table in (first, second)]
    for pair in pairs:
        a, b = facts[0][pair["a"]], facts[1][pair["b"]]
        labels = [_text(a["label"]), _text(b["label"])]
        patients_of = [_text(a["patient_id"]), _text(b["patient_id"])]
        # Kind "view" is no copy: another moment of one exam, which may show something else.
        contradict = pair["kind"] != "view" and _contradict(labels, vocabularies)
        pair |= {"labels": labels, "patients": patients_of, "contradict": contradict}
    return {"other": other.name, "by_content": pictures, "shared": shared, "patients": patients, "pairs": pairs}


def leakage_against(statistics: dict[str, Any]) -> Finding | None:
    """Patients, files, frames or scans that stand in both sets."""
    found = statistics["against"]
    present = [row for row in found["shared"] if row["number"]]
    if not present:
        return None
    rows = [f"patient {row['patient']}: {count(row['clips'], 'clip')} here, {row['clips_other']:,} there" for row in found["patients"]]
    rows += [f"{pair['a']} = {pair['b']} ({pair['kind']}, {pair['score']:.2f})" for pair in found["pairs"]]
    what = ", ".join(f"{row['number']:,} {row['what']}" for row in present)
    advice = "Do not train on one and test on the other: leave these patients and clips out of one of the two."
    return Finding("leakage-against", "error", f"This set and '{found['other']}' share {what}.", tuple(rows), advice)


def conflicting_labels_against(statistics: dict[str, Any]) -> Finding | None:
    """Clips that show the same scan and have different labels in the two sets."""
    found = statistics["against"]
    rows = tuple(f"{pair['a']} = {pair['b']} ({' and '.join(pair['labels'])})" for pair in found["pairs"] if pair["contradict"])
    if not rows:
        return None
    pairs_have = count(len(rows), "pair of clips that show the same scan has", "pairs of clips that show the same scan have")
    message = f"{pairs_have} another label in '{found['other']}'."
    return Finding("conflicting-labels-against", "error", message, rows, "Settle which label is right: one of the two sets is wrong.")


def _clips(dataset: DataSet) -> pd.DataFrame:
    videos = manifest.read_table(dataset.folder, manifest.VIDEOS, columns=_COLUMNS).to_pandas()
    return videos[videos["status"] == "ok"].reset_index(drop=True)


def _shared_patients(first: pd.DataFrame, second: pd.DataFrame) -> list[dict[str, Any]]:
    keys = ["source", "patient_id"]
    counts = [table[table["patient_id"].notna()].groupby(keys).size().rename(name) for table, name in ((first, "a"), (second, "b"))]
    both = pd.concat(counts, axis=1, join="inner").reset_index().sort_values(keys)
    return [
        {"patient": f"{source}/{patient}", "clips": int(here), "clips_other": int(there)}
        for source, patient, here, there in both.itertuples(index=False)
    ]


def _usable(clips: pd.DataFrame, column: str) -> pd.DataFrame:
    """Clips whose digest says something: a picture that never changes is equal to its like and no scan, unless the file is equal too."""
    known = clips[clips[column].notna()]
    return known if column == "sha256" else known[known["frames_unique"] >= LEAST_UNIQUE_FRAMES]


def _standing(first: pd.DataFrame, second: pd.DataFrame, column: str) -> int:
    return int(_usable(first, column)[column].isin(_usable(second, column)[column]).sum())


def _exact(dataset: DataSet, first: pd.DataFrame, other: DataSet, second: pd.DataFrame) -> dict[str, Any]:
    """Pairs by digests, each of its strongest kind, and the number of frames of the first that stand in the second."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    columns = ("video_id", "pixel_sha256")
    frames = [manifest.read_table(each.folder, manifest.FRAMES, columns=columns).to_pandas() for each in (dataset, other)]
    standing = frames[0]["pixel_sha256"].isin(frames[1]["pixel_sha256"])
    kept = [table.groupby("video_id").size() for table in frames]
    distinct = [table.drop_duplicates() for table in (frames[0][standing], frames[1])]
    few = [table[table.groupby("pixel_sha256")["video_id"].transform("size") <= MOST_CLIPS_OF_A_SCAN] for table in distinct]
    equal = few[0].merge(few[1], on="pixel_sha256", suffixes=("_a", "_b")).groupby(["video_id_a", "video_id_b"]).size()
    for (a, b), number in equal.items():
        shorter = min(int(kept[0][a]), int(kept[1][b]))
        found[a, b] = {"a": str(a), "b": str(b), "kind": "pixels", "score": min(1.0, int(number) / shorter)}
    for kind in reversed(_KINDS):
        sides = [_usable(table, _KINDS[kind])[["video_id", _KINDS[kind]]] for table in (first, second)]
        for a, b in sides[0].merge(sides[1], on=_KINDS[kind])[["video_id_x", "video_id_y"]].itertuples(index=False):
            found[a, b] = {"a": str(a), "b": str(b), "kind": kind, "score": 1.0}
    return {"frames": int(standing.sum()), "pairs": [found[key] for key in sorted(found)]}


def _contradict(labels: list[str | None], vocabularies: list[set[str]]) -> bool:
    """Whether two labels of one scan contradict: they differ, and one of the sets has a class of the other's name and did not give it."""
    a, b = labels
    if a is None or b is None or _word(a) == _word(b):
        return False
    return _word(a) in vocabularies[1] or _word(b) in vocabularies[0]


def _word(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
