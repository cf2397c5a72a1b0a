"""The leakage guard: what was trained on is compared with what is to be evaluated, before anything is trained.

In: what is known of each of the weights, and the frames that were selected. Out: which clips are not new to which weights, and which frames
are therefore left out; or a refusal that names them. An overlap is let through only under the weights' own name.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.evaluation.folds import independent_groups
from uscl.evaluation.selection import ROW
from uscl.trained_on import Known, known
from usdata.duplicates.guard import SAME_SCAN, Seen, seen_clips
from usdata.duplicates.record import Record, open_record, write_record
from usdata.errors import UserError, nearest
from usdata.manifest import DataSet, open_dataset

NAMED_CLIPS = 3


@dataclass(frozen=True)
class Overlap:
    """What of the evaluated clips is not new to one of the weights.

    Attributes:
        name: The weights, as they are called in results.
        level: What is known of what they were trained on: none, clips, files or unknown, see `Known.level`.
        whole: They were trained on nothing else.
        trained_clips: Clips that they are known to be trained on.
        pretraining_sets: Names and digests of the data sets that the user named as theirs.
        seen: The clips that are not new.
        labels_used: Those of them of which the label was trained on too.
        handling: "allowed" or "left out"; None where there is nothing to handle.
        patients: Whether patients and groups could be compared: "by id", "by pseudonym" (which meet under one secret alone) or "not" (no
            evaluated clip names one in a source that is called as one that was trained on); None where no clip is known.
        patients_of: In how many of the evaluated clips.
        fitted_on: The data set that the weights name, where its clips are not at hand.
    """

    name: str
    level: str
    whole: bool
    trained_clips: int
    pretraining_sets: list[dict[str, str]]
    seen: list[Seen]
    labels_used: int
    handling: str | None
    patients: str | None = None
    patients_of: int = 0
    fitted_on: str | None = None

    def told(self) -> str:
        """How many clips are not new, and why, in words."""
        kinds = Counter("scan" if seen.kind in SAME_SCAN else seen.kind for seen in self.seen)
        told = [
            f"{kinds[kind]} {verb if kinds[kind] == 1 else verbs}"
            for kind, verb, verbs in (
                ("scan", "stands in what it was trained on", "stand in what it was trained on"),
                ("view", "shows a place that stands in it, at another moment", "show places that stand in it, at another moment"),
                ("patient", "is of a patient in it", "are of patients in it"),
                ("group", "is of a group in it", "are of groups in it"),
            )
            if kinds[kind]
        ]
        return ", ".join(told)


@dataclass(frozen=True)
class Guarded:
    """The guard's answer.

    Attributes:
        overlaps: One for each of the weights, in their order.
        groups: (n,) the independent group of each of the frames.
        left_out: (n,) which of the frames are left out of the evaluation.
        clips: Clips that were to be evaluated.
        clips_left_out: Those of them that are left out.
        groups_left_out: Independent groups that they are.
    """

    overlaps: list[Overlap]
    groups: NDArray[np.str_]
    left_out: NDArray[np.bool_]
    clips: int
    clips_left_out: int
    groups_left_out: int

    @property
    def allowed(self) -> list[str]:
        """The weights whose overlap is let through."""
        return [each.name for each in self.overlaps if each.handling == "allowed"]

    def kept(self, frames: pd.DataFrame, dataset: DataSet) -> tuple[pd.DataFrame, NDArray[np.str_]]:
        """The labelled frames that are not left out, and their groups.

        Raises:
            UserError: They are of fewer than two classes.
        """
        kept = frames[~self.left_out].reset_index(drop=True)
        if kept["label"].nunique() < 2:
            reason = f"without the {self.clips_left_out} clips that were trained on, or stand in their groups, no two classes are left"
            raise UserError(dataset.folder, reason, "evaluate on another set, or keep them by name with --allow-overlap")
        return kept, self.groups[~self.left_out]

    def to_json(self) -> dict[str, Any]:
        """For `evaluation.json`."""
        weights = [{**vars(each), "seen": [asdict(seen) for seen in each.seen]} for each in self.overlaps]
        left_out = {"clips": self.clips_left_out, "groups": self.groups_left_out, "frames": int(self.left_out.sum())}
        return {"clips": self.clips, "weights": weights, "left_out": left_out}

    def notes(self) -> list[str]:
        """What a reader must know, in sentences; nothing where all is known and nothing was seen."""
        notes = []
        for each in self.overlaps:
            if each.handling == "allowed":
                also = f"; of {each.labels_used} the label was trained on too" if each.labels_used else ""
                count = f"{len(each.seen)} of {self.clips} clips are not new to it"
                notes.append(f"Figures of {each.name} are optimistic: {count} ({each.told()}{also}).")
            if each.level == "unknown":
                option = f"--pretraining-set {shlex.quote(each.name)}=SET"
                known = f"The clips of '{each.fitted_on}', which {each.name} says that it was trained on, are not at hand"
                unknown = f"It is not known what {each.name} was trained on"
                notes.append(f"{known if each.fitted_on else unknown}: {option} compares its clips with these.")
            elif each.level == "files":
                notes.append(
                    f"Of what {each.name} was trained on, some is known by the digests of files alone: equal files are found, re-encoded "
                    "copies and patients are not."
                )
            elif not each.whole:
                notes.append(f"{each.name} started from weights of which it is not known what they were trained on.")
        if self.clips_left_out:
            why = "; ".join(f"{len(each.seen)} not new to {each.name}" for each in self.overlaps if each.handling == "left out")
            groups = f"{self.groups_left_out} group{'' if self.groups_left_out == 1 else 's'}"
            notes.append(
                f"{self.clips_left_out} of {self.clips} clips ({groups}) are left out for all weights: {why}, and the rest of their groups."
            )
        return notes

    def patient_notes(self) -> list[str]:
        """Where patients could not be compared for sure, in sentences: what one set calls a patient says nothing in another one."""
        notes = []
        for each in self.overlaps:
            if each.patients is not None and each.patients_of < self.clips:
                where = f"in {self.clips - each.patients_of} of {self.clips} clips" if each.patients_of else "here"
                why = "no patient is named there in a source that is called as one of its own"
                notes.append(f"Patients of {each.name} could not be looked for {where}: {why}. Clips were, by their pictures.")
            if each.patients == "by pseudonym":
                why = "pseudonyms, which are equal only where both sets were made with one secret"
                notes.append(f"Patients of {each.name} were looked for here by {why}.")
        return notes


def guard(
    dataset: DataSet,
    frames: pd.DataFrame,
    weights: Mapping[str, str],
    provenance: Mapping[str, Mapping[str, Any]],
    *,
    allow_overlap: Sequence[str] = (),
    without_overlap: bool = False,
    pretraining_sets: Sequence[str] = (),
) -> Guarded:
    """Compare what the weights were trained on with what is to be evaluated.

    Groups are those of the whole set: what was trained on and is not selected (for want of a label, say) is not new either, and nor is what
    belongs to its group.

    Args:
        dataset: What is evaluated.
        frames: Its selected frames, with their column `row`.
        weights: Name in results to run folder, file, folder of a classifier, 'random' or 'imagenet'.
        provenance: By name, see `load_backbone`.
        allow_overlap: Names of weights whose overlap is let through, and told of.
        without_overlap: Leave out, for all weights, the groups with clips that any others have seen.
        pretraining_sets: 'NAME=SET' or 'SET' (of all weights that do not say): data sets that weights were trained on.

    Raises:
        UserError: There is an overlap and no word on it, a name is unknown, or a record is damaged.
    """
    for name in allow_overlap:
        if name not in weights:
            raise UserError(f"--allow-overlap {name}", "is not among the weights", nearest(name, weights))
    units = independent_groups(dataset.frames, dataset.duplicates)
    groups = units[frames[ROW]]
    video_ids = sorted(set(frames["video_id"]))
    unit_of = dict(zip(dataset.frames["video_id"], units, strict=True))
    knowledge = {name: known(word, provenance[name]) for name, word in weights.items()}
    named = _named_sets(pretraining_sets, knowledge)
    overlaps = []
    answers: dict[tuple[Any, ...], list[Seen]] = {}
    for name, what in knowledge.items():
        with TemporaryDirectory(prefix="uscl-guard-") as place:
            sets = named[name] or _own_set(dataset, what, provenance[name])
            what = _with_sets(what, sets, provenance[name], Path(place))
            # What a person names is all there is; what weights tell of themselves may not be.
            if named[name]:
                what = replace(what, whole=_all_named(provenance[name], named[name]))
            record = _as_record(what, Path(place) / "digests.parquet")
            rows = [] if record is None else record.rows
            seen: list[Seen] = []
            if record is not None:
                # Runs that were trained on the same clips are asked once.
                same = tuple((row["dataset_digest"], row["video_id"], row["sha256"]) for row in rows)
                seen = answers[same] if same in answers else _selected(seen_clips(record, dataset, unit_of), video_ids, unit_of)
                answers[same] = seen
        patients, patients_of = _patients_compared(dataset, frames, rows)
        overlaps.append(
            Overlap(
                name=name,
                level=what.level,
                whole=what.whole,
                trained_clips=len(rows),
                pretraining_sets=[{"name": each.name, "digest": each.digest} for each in named[name]],
                seen=seen,
                patients=patients,
                patients_of=patients_of,
                fitted_on=None if record is not None else provenance[name].get("dataset_name"),
                labels_used=sum(rows[each.place]["labels_used"] for each in seen if each.kind in SAME_SCAN),
                handling=None if not seen else "allowed" if name in allow_overlap else "left out" if without_overlap else "refused",
            )
        )
    _refuse(dataset, overlaps, len(video_ids))
    seen_ids = {seen.video_id for each in overlaps if each.handling == "left out" for seen in each.seen}
    left_out = np.isin(groups, groups[frames["video_id"].isin(seen_ids).to_numpy()])
    return Guarded(
        overlaps=overlaps,
        groups=groups,
        left_out=left_out,
        clips=len(video_ids),
        clips_left_out=int(frames["video_id"][left_out].nunique()),
        groups_left_out=len(set(groups[left_out].tolist())),
    )


def _patients_compared(dataset: DataSet, frames: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> tuple[str | None, int]:
    """How patients and groups could be compared, and in how many of the evaluated clips; see `Overlap`."""
    if not rows:
        return None, 0
    known = {row["source"] for row in rows if _named(row["patient_id"], row["group_id"])} - {None}
    clips = frames.drop_duplicates("video_id")
    compared = [
        source
        for source, patient, group in zip(clips["source"], clips["patient_id"], clips["group_id"], strict=True)
        if source in known and _named(patient, group)
    ]
    if not compared:
        return "not", 0
    private = set((dataset.about.get("privacy") or {}).get("private_sources", []))
    return "by pseudonym" if private.intersection(compared) else "by id", len(compared)


def _named(patient: Any, group: Any) -> bool:
    """Whether a clip says whose it is: a group of its own says nothing in another set."""
    return isinstance(patient, str) or (isinstance(group, str) and not group.partition("/")[2].startswith("video:"))


def _selected(seen: Sequence[Seen], video_ids: Sequence[str], unit_of: Mapping[str, str]) -> list[Seen]:
    """Which of the selected clips are not new: those that were seen, and those in a group with a clip that was and is not selected."""
    selected = set(video_ids)
    found = {each.video_id: each for each in seen if each.video_id in selected}
    beside = {unit_of[each.video_id]: each for each in reversed(seen) if each.video_id not in selected}
    for video_id in video_ids:
        if video_id not in found and unit_of[video_id] in beside:
            found[video_id] = replace(beside[unit_of[video_id]], video_id=video_id, kind="group", score=1.0)
    return [found[video_id] for video_id in sorted(found)]


def _named_sets(texts: Sequence[str], knowledge: Mapping[str, Known]) -> dict[str, list[DataSet]]:
    """By weights' name, the data sets that the user says they were trained on."""
    found: dict[str, list[DataSet]] = {name: [] for name in knowledge}
    for text in texts:
        name, sign, folder = text.partition("=")
        if sign and name in knowledge:
            found[name].append(open_dataset(folder))
            continue
        if sign and not Path(text).exists():
            raise UserError(f"--pretraining-set {text}", f"names no weights '{name}'", nearest(name, knowledge))
        dataset = open_dataset(text)
        silent = [each for each, what in knowledge.items() if what.level in ("unknown", "files")]
        if not silent:
            raise UserError(f"--pretraining-set {text}", "tells nothing new: all weights say what they were trained on", "leave it out")
        for each in silent:
            found[each].append(dataset)
    return found


def _own_set(dataset: DataSet, what: Known, provenance: Mapping[str, Any]) -> list[DataSet]:
    """The evaluated set, where weights without a record say that they were trained on it."""
    trained = (provenance.get("dataset_digest"), provenance.get("backbone_dataset_digest"))
    return [dataset] if what.record is None and dataset.digest in trained else []


def _all_named(provenance: Mapping[str, Any], sets: Sequence[DataSet]) -> bool:
    """Whether the sets that a person names are all that weights were trained on: of a classifier, also what was before the fit."""
    before = provenance.get("backbone_dataset_digest")
    return before is None or before in {each.digest for each in sets}


def _with_sets(what: Known, sets: Sequence[DataSet], provenance: Mapping[str, Any], folder: Path) -> Known:
    """The same with the clips of some data sets; of the one that the weights name, those of the splits that they name."""
    for number, dataset in enumerate(sets):
        frames = dataset.frames
        if provenance.get("dataset_digest") == dataset.digest and provenance.get("splits"):
            frames = frames[frames["split"].isin(str(provenance["splits"]).split(", "))]
        path = folder / f"{number}.parquet"
        write_record(path, dataset, set(frames["video_id"]), earlier=what.record, digests=what.digests)
        what = Known(open_record(path), (), what.whole)
    return what


def _as_record(what: Known, path: Path) -> Record | None:
    """What is known as a record; None where nothing is."""
    if what.record is None and what.digests:
        write_record(path, digests=what.digests)
        return open_record(path)
    return what.record


def _refuse(dataset: DataSet, overlaps: Sequence[Overlap], clips: int) -> None:
    refused = [each for each in overlaps if each.handling == "refused"]
    if not refused:
        return
    told = "; ".join(
        f"{len(each.seen)} of {clips} clips are not new to {each.name}: {each.told()} ({_some(each.seen)})" for each in refused
    )
    names = " ".join(f"--allow-overlap {shlex.quote(each.name)}" for each in refused)
    by_name = sorted({seen.video_id.partition("/")[0] for each in refused for seen in each.seen if seen.kind in ("patient", "group")})
    why = f"equal ids of patients or groups in sources of one name ({', '.join(by_name)}) are one: where they are not, rename the source"
    other = f"; {why}" if by_name else ""
    raise UserError(
        dataset.folder,
        f"refused, because {told}",
        f"leave these clips and their groups out for all weights with --without-overlap, or keep them and have it said with {names}{other}",
    )


def _some(seen: Sequence[Seen]) -> str:
    """The first clips by name, with kind and score."""
    strongest = sorted(seen, key=lambda each: (each.kind not in SAME_SCAN, each.video_id))
    shown = ", ".join(f"'{each.video_id}' {_kind(each)}" for each in strongest[:NAMED_CLIPS])
    return f"{shown} and {len(seen) - NAMED_CLIPS} more" if len(seen) > NAMED_CLIPS else shown


def _kind(seen: Seen) -> str:
    other = "" if seen.trained_on in (None, seen.video_id) else f" as '{seen.trained_on}'"
    if seen.kind in SAME_SCAN:
        return f"({seen.kind} {seen.score:.2f}){other}"
    return f"(same {seen.kind}){other}"
