"""The published POCUS folds, which are pickles of pictures without names, as a data set.

In: five pickles (`covid_data1.pkl` ...). Out: a data set folder with the folds as they were given. The pictures carry no video and no
patient: each is a clip of its own here, and groups are the recordings that the pictures themselves tell (`usdata.duplicates.recordings`),
which is the least that belongs together. What the published folds cut of it is counted, told, and in the set's tables.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from usdata.building import build
from usdata.building.staging import OVERWRITE, disk_errors, locked, put_in_place, recover, refuse_occupied
from usdata.console import progress
from usdata.duplicates.fingerprints import pixel_digest
from usdata.duplicates.recordings import describe_frame, find_recordings
from usdata.errors import UserError
from usdata.files import write_text
from usdata.fold_pickles.fold_files import FoldFile, Label, Picture, read_fold
from usdata.fold_pickles.known_clips import find_known, joined
from usdata.recipe import Recipe
from usdata.splitting import split

# In the order of their numbers, as the published evaluation names them.
CLASSES = ("covid19", "pneumonia", "regular")
# Of the folds that USCL's evaluation is run on: frames a fold, and frames a class.
PUBLISHED_FOLDS = (476, 369, 487, 360, 424)
PUBLISHED_CLASSES = {"covid19": 655, "pneumonia": 349, "regular": 1112}
SUFFIXES = (".pkl", ".pickle", ".p")
MOST_FRAMES = 20_000  # of which all pairs are compared
LABELS_CSV, FOLDS_CSV, RECIPE_YAML = "labels.csv", "folds.csv", "recipe.yaml"


@dataclass(frozen=True)
class ImportedFolds:
    """What was taken in.

    Attributes:
        out: The data set folder.
        digest: Of its tables.
        files: Names of the pickles, in the order of the folds.
        shapes: How they were read, each once.
        frames: Frames of each fold.
        classes: Class to its frames.
        as_published: The numbers of frames, by fold and by class, are those of the published folds.
        recordings: Recordings that the pictures tell.
        known: Frames that were found in the data set of known clips; None where none was given.
        groups: The recordings, joined where frames of them are of one known group.
        cut: Groups that stand in two folds or more.
        cut_frames: Frames of those.
        near_copies: Frames of which a near copy stands in another fold.
        equal: Frames of which an equal one stands in another fold.
        most_alike: How like two frames of different folds are at most, -1 to 1.
        notes: What a person should know.
    """

    out: Path
    digest: str
    files: list[str]
    shapes: list[str]
    frames: list[int]
    classes: dict[str, int]
    as_published: bool
    recordings: int
    known: int | None
    groups: int
    cut: int
    cut_frames: int
    near_copies: int
    equal: int
    most_alike: float
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"out": str(self.out)}


@dataclass(frozen=True)
class _Unpacked:
    """The frames of all folds, in order."""

    paths: list[str]
    labels: list[str]
    folds: NDArray[np.int64]
    described: NDArray[np.int8]
    digests: list[str]
    shapes: list[str]
    notes: list[str]


def import_folds(
    folds: Sequence[str | Path],
    out: str | Path,
    *,
    classes: Sequence[str] = CLASSES,
    name: str = "pocus-folds",
    clips: str | Path | None = None,
    raw: str | Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> ImportedFolds:
    """Make a data set of published folds that are pickles.

    Args:
        folds: The pickles, one a fold, or a folder of them. They are folds 0, 1, ... in the order of their names, numbers by value.
        out: The data set folder to make.
        classes: What the labels 0, 1, ... mean.
        name: Of the data set.
        clips: A data set of the clips that the folds were taken from, such as 'usdata build pocus' makes: frames that stand in it join its
            groups. None: nothing is known but the pictures.
        raw: Folder to keep the unpacked pictures in, with recipe.yaml and folds.csv; None: they are gone afterwards.
        workers: Processes; None: all processors.
        overwrite: Replace a data set that stands at `out`.

    Raises:
        UserError: A file is no fold, a label has no class, or `out` or `raw` is occupied. Nothing is written then.
    """
    files = _files(folds)
    _check_classes(classes)
    out = Path(out).resolve() if Path(out).is_symlink() else Path(out).absolute()
    keep = None if raw is None else Path(raw).absolute()
    recover(out)
    _refuse_occupied(out, keep, overwrite=overwrite)
    with _working_folder(out) as work:
        unpacked = _unpack(files, work / "raw", classes)
        if len(set(unpacked.labels)) < 2:
            raise UserError(files[0].parent, f"all pictures of the folds are of one class ({unpacked.labels[0]})", "give all folds")
        found = find_recordings(unpacked.described, unpacked.folds)
        known = None if clips is None else find_known(unpacked.described, Path(clips))
        recordings = found.number.tolist()
        groups = recordings if known is None else joined(recordings, known.group)
        counts = [int(number) for number in np.bincount(unpacked.folds)]
        of_class = {each: unpacked.labels.count(each) for each in classes if each in unpacked.labels}
        as_published = tuple(counts) == PUBLISHED_FOLDS and of_class == PUBLISHED_CLASSES
        folds_of: dict[int, set[int]] = {}
        for group, fold in zip(groups, unpacked.folds.tolist(), strict=True):
            folds_of.setdefault(group, set()).add(fold)
        cut = {group for group, parts in folds_of.items() if len(parts) > 1}
        places: dict[str, set[int]] = {}
        for digest, fold in zip(unpacked.digests, unpacked.folds.tolist(), strict=True):
            places.setdefault(digest, set()).add(fold)
        figures: dict[str, Any] = {
            "recordings": len(set(recordings)),
            "known": None if known is None else known.found,
            "groups": len(folds_of),
            "cut": len(cut),
            "cut_frames": sum(group in cut for group in groups),
            "near_copies": int(found.copied.sum()),
            "equal": sum(len(places[digest]) > 1 for digest in unpacked.digests),
            "most_alike": round(float(found.likeness.max()), 4),
        }
        recipe = _recipe(name, classes, len(unpacked.paths), figures, None if known is None else known.name, as_published=as_published)
        _write_raw(work / "raw", unpacked, groups, [None] * len(groups) if known is None else known.clip, recipe)
        built = build(recipe, raw=work / "raw", out=work / "set", workers=workers)
        if built.counts["frames"] != len(unpacked.paths):
            raise RuntimeError(f"{len(unpacked.paths)} pictures gave {built.counts['frames']} frames")  # a fault of ours
        result = split(work / "set", published=work / "raw" / FOLDS_CSV, apply=True, allow_leaks=True)
        if keep is not None:
            _put(work / "raw", keep)
        put_in_place(work / "set", out)
    return ImportedFolds(
        out=out,
        digest=result.digest,
        files=[path.name for path in files],
        shapes=unpacked.shapes,
        frames=counts,
        classes=of_class,
        as_published=as_published,
        notes=unpacked.notes,
        **figures,
    )


def _files(given: Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for each in map(Path, given):
        if each.is_dir():
            inside = [
                path for path in each.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
            ]
            if not inside:
                raise UserError(each, f"holds no pickle ({', '.join(SUFFIXES)})", "give the files themselves, or unpack the archive")
            files += inside
        elif each.is_file():
            files.append(each)
        else:
            raise UserError(each, "no such file or folder", "give the pickles of all folds, or the folder that holds them")
    files = sorted({path.resolve(): path for path in files}.values(), key=lambda path: (_natural(path.name), str(path)))
    if len(files) < 2:
        raise UserError(files[0] if files else "FOLDS", "is one fold alone", "give the pickles of all folds, or the folder that holds them")
    return files


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts covid_data2 before covid_data10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _check_classes(classes: Sequence[str]) -> None:
    if (
        len(classes) < 2
        or len(set(classes)) < len(classes)
        or not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*", name) for name in classes)
    ):
        raise UserError(
            "--classes", f"are {', '.join(map(repr, classes))}", f"give two names or more, each once, such as {','.join(CLASSES)}"
        )


def _refuse_occupied(out: Path, keep: Path | None, *, overwrite: bool) -> None:
    refuse_occupied(out)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(out, "exists already and is left as it is", OVERWRITE)
    if keep is None:
        return
    if keep == out or keep in out.parents or out in keep.parents:
        raise UserError("--raw", "and --out lie in one another", "name two folders apart")
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UserError(keep, "is not empty", "name another --raw")


@contextmanager
def _working_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside the target, for this import alone; it is gone afterwards, and what a killed one left is too."""
    work = out.parent / f".{out.name}.importing"
    with disk_errors(out), locked(work):
        try:
            for path in work.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _put(folder: Path, keep: Path) -> None:
    """The unpacked pictures where the user wants them, whole or not at all, on another disk too."""
    keep.parent.mkdir(parents=True, exist_ok=True)
    near = Path(tempfile.mkdtemp(dir=keep.parent, prefix=f".{keep.name}.part-"))
    try:
        shutil.copytree(folder, near, dirs_exist_ok=True)
        near.chmod(0o755)
        if keep.exists():
            keep.rmdir()
        near.rename(keep)
    finally:
        shutil.rmtree(near, ignore_errors=True)


def _unpack(files: Sequence[Path], raw: Path, classes: Sequence[str]) -> _Unpacked:
    """Write every held-out picture as PNG, and look whether each fold trains on the pictures of all others."""
    paths: list[str] = []
    labels: list[str] = []
    numbers: list[int] = []
    described: list[NDArray[np.int8]] = []
    digests: list[str] = []
    shapes: list[str] = []
    trained: dict[int, Counter[str]] = {}
    with progress("reading folds", len(files), "files") as advance:
        for number, path in enumerate(files):
            fold = read_fold(path)  # one at a time: each holds the pictures of all
            shapes.append(fold.shape)
            (raw / f"fold-{number}").mkdir(parents=True)
            names = _names(path, fold, classes)
            if len(paths) + len(names) > MOST_FRAMES:
                raise UserError(path, f"is beyond {MOST_FRAMES:,} frames, all pairs of which are compared", "give fewer folds")
            for place, (picture, label) in enumerate(zip(fold.held_out.pictures(), names, strict=True), 1):
                name = f"fold-{number}/{place:05d}.png"
                gray = _write(raw / name, picture)
                paths.append(name)
                labels.append(label)
                numbers.append(number)
                described.append(describe_frame(gray))
                digests.append(_digest(picture))
            if fold.training is not None:
                trained[number] = Counter(map(_digest, fold.training.pictures()))
            advance(1)
    notes = _training_notes([path.name for path in files], digests, numbers, trained)
    return _Unpacked(paths, labels, np.array(numbers, np.int64), np.stack(described), digests, sorted(set(shapes)), notes)


def _names(path: Path, fold: FoldFile, classes: Sequence[str]) -> list[str]:
    """The classes of what is held out."""
    return [_name(path, label, classes) for label in fold.held_out.labels]


def _name(path: Path, label: Label, classes: Sequence[str]) -> str:
    if isinstance(label, int) and 0 <= label < len(classes):
        return classes[label]
    if isinstance(label, str) and label in classes:
        return label
    advice = "name the classes with --classes, in the order of their numbers" if isinstance(label, int) else "name all with --classes"
    raise UserError(path, f"holds the label {label!r}, and the classes are {', '.join(classes)}", advice)


def _write(path: Path, picture: Picture) -> NDArray[np.uint8]:
    """A picture as PNG, gray where its channels are equal; its gray levels come back."""
    if picture.ndim == 3 and (picture == picture[:, :, :1]).all():
        picture = np.ascontiguousarray(picture[:, :, 0])
    stored = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), stored):
        raise UserError(path, "cannot be written", "name another --out")
    return picture if picture.ndim == 2 else np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def _digest(picture: Picture) -> str:
    return pixel_digest(picture.reshape(picture.shape[0], -1))


def _training_notes(files: Sequence[str], digests: Sequence[str], numbers: Sequence[int], trained: dict[int, Counter[str]]) -> list[str]:
    """Where a fold's training part is not the pictures that all other folds hold out."""
    notes = []
    for number, training in trained.items():
        others = Counter(digest for digest, fold in zip(digests, numbers, strict=True) if fold != number)
        missing, more = (others - training).total(), (training - others).total()
        if missing or more:
            told = f"trains on {training.total():,} pictures: {missing:,} that other folds hold out are not among them"
            notes.append(f"{files[number]} {told}, and {more:,} are in no other fold; the set holds what is held out alone")
    if trained and len(trained) < len(files):
        notes.append(f"{len(files) - len(trained)} of {len(files)} files have no training part; what is held out elsewhere is taken for it")
    return notes


def _recipe(name: str, classes: Sequence[str], frames: int, figures: dict[str, Any], known: str | None, *, as_published: bool) -> Recipe:
    told = "as far as pictures tell, the least that belongs together" if known is None else f"joined by the groups of '{known}'"
    also = "" if known is None else f" ({figures['known']} of {frames} frames stand in it)"
    text = (
        f"Published folds without video or patient ids. Each frame is a clip of its own; groups are recordings, {told}{also}. The "
        f"published folds cut {figures['cut']} of {figures['groups']} groups; {figures['near_copies']} frames have a near copy in another"
    )
    source: dict[str, Any] = {
        "name": name,
        "table": LABELS_CSV,
        "patient_ids": "public",  # there are none
        "columns": {"path": "path", "label": "label", "group": "recording"},
        "label_columns": ["published_fold", "known_clip"],
        "constants": {"organ": "lung", "probe": "convex"} if as_published else {},
        "sampling": {"rule": "all"},
        "expected": {"videos": frames, "frames": frames},
    }
    return Recipe.model_validate(
        {
            "name": name,
            "description": text,
            "sources": [source],
            "hygiene": {"blank_mean": 0, "blank_std": 0, "repeated": "all"},  # as published: no picture is left out
            "modes": None,
            # Stills of one recording are no copies of one another; they are joined by the table's column instead.
            "duplicates": {"content": False},
            "folds": {"count": 0},
            "classes": list(classes),
        }
    )


def _write_raw(raw: Path, unpacked: _Unpacked, groups: Sequence[int], clips: Sequence[str | None], recipe: Recipe) -> None:
    """The table, the folds and the recipe beside the pictures, with which the set can be built again."""
    rows = list(zip(unpacked.paths, unpacked.labels, unpacked.folds.tolist(), groups, clips, strict=True))
    table = [["path", "label", "published_fold", "recording", "known_clip"]]
    table += [[path, label, str(fold), f"recording-{group + 1:05d}", clip or ""] for path, label, fold, group, clip in rows]
    write_text(raw / LABELS_CSV, _as_csv(table))
    write_text(raw / FOLDS_CSV, _as_csv([["path", "fold"], *([path, str(fold)] for path, _, fold, _, _ in rows)]))
    values = recipe.model_dump(mode="json", exclude_defaults=True)
    write_text(raw / RECIPE_YAML, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=140))


def _as_csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


__all__ = ["CLASSES", "ImportedFolds", "import_folds"]
