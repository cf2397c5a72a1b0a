"""Splits and folds of a data set that stands: made anew by seed, or taken from a published table, and proved either way.

In: a data set folder. Out: the same folder with other `split` and `fold` columns, and a proof read from its tables. Nothing else of it
changes. Folds made here are those that a build with the same recipe makes, byte for byte; a published split is reported, and applied on
request alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from usdata import manifest
from usdata.building.identity import ORIGINS, identity
from usdata.building.staging import recover
from usdata.duplicates.groups import independent_units
from usdata.duplicates.leaks import Leaks
from usdata.errors import UserError
from usdata.recipe import Recipe
from usdata.recipe_files import explain_validation
from usdata.splits import fold_of_groups, label_counts, split_of_groups
from usdata.splitting.applying import Placed, place
from usdata.splitting.proof import Proof, counted, proof_of, prove
from usdata.splitting.published import Published, read_published
from usdata.successor import staged, take_place, with_parts, write_successor

__all__ = ["Proof", "SplitResult", "prove", "split"]


@dataclass(frozen=True)
class SplitResult:
    """What `split` made or found.

    Attributes:
        out: The data set folder.
        name: The data set's name.
        digest: The set's digest as it stands now.
        written: The folder was changed.
        proofs: Of the folds and the splits that stand now; of a published split that was not applied, what it would be.
        notes: What a person should know.
        published: The published split with what of it was matched; None where splits were made.
        leaks: What leaks in the published split, as it names clips; None where splits were made.
    """

    out: Path
    name: str
    digest: str
    written: bool
    proofs: list[Proof]
    notes: list[str] = field(default_factory=list)
    published: Placed | None = None
    leaks: Leaks | None = None

    @property
    def leaking(self) -> bool:
        """Whether anything stands in two parts."""
        return any(proof.leaks.any for proof in self.proofs) or (self.leaks is not None and self.leaks.any)

    @property
    def warnings(self) -> list[str]:
        """Labels that are too rare for every fold to have one."""
        return [warning for proof in self.proofs for warning in proof.warnings]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "out": str(self.out),
            "name": self.name,
            "digest": self.digest,
            "written": self.written,
            "leaking": self.leaking,
            "proofs": [proof.to_json() for proof in self.proofs],
            "notes": self.notes,
            "warnings": self.warnings,
            "published": None if self.published is None else self.published.to_json(),
            "leaks": None if self.leaks is None else self.leaks.to_json(),
        }


def split(
    dataset: str | Path,
    *,
    folds: int | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int | None = None,
    published: str | Path | None = None,
    column: str | None = None,
    apply: bool = False,
    rest: str | None = None,
    allow_leaks: bool = False,
) -> SplitResult:
    """Make a data set's splits and folds anew, or read published ones; prove that nothing stands in two parts.

    Args:
        dataset: The data set folder.
        folds: Number of folds, 0 for none; None: as the recipe that stands in the set says.
        val: Share of frames for val; None: likewise.
        test: Share of frames for test; None: likewise.
        seed: Of folds and splits; None: likewise.
        published: A published split or published folds to report on instead (see `usdata.splitting.published`).
        column: The table's column of parts, where it has several.
        apply: Write the published split into the data set.
        rest: Where frames go that it does not name: train, val or test, or for folds a number or "none".
        allow_leaks: Apply it although it leaks; dataset.json then says how.

    Raises:
        UserError: The folder is no data set, the folds or shares cannot be made of its groups, or the published split cannot be read,
            matched or applied.
    """
    out = Path(dataset).resolve() if Path(dataset).is_symlink() else Path(dataset).absolute()
    recover(out)
    opened = manifest.open_dataset(out if out.exists() else dataset)
    if published is None:
        if column is not None or apply or rest is not None or allow_leaks:
            raise UserError(
                "--column, --apply, --rest and --allow-leaks", "go with --published", "name the published split, or leave them out"
            )
        return _made(out, opened, folds=folds, val=val, test=test, seed=seed)
    if not all(value is None for value in (folds, val, test, seed)):
        raise UserError("--published", "does not go with --folds, --val, --test and --seed", "give one or the other")
    if (rest is not None or allow_leaks) and not apply:
        raise UserError("--rest and --allow-leaks", "are for --apply", "add --apply, or leave them out")
    return _published(out, opened, read_published(published, column=column), apply=apply, rest=rest, allow_leaks=allow_leaks)


def _made(
    out: Path, opened: manifest.DataSet, *, folds: int | None, val: float | None, test: float | None, seed: int | None
) -> SplitResult:
    about = dict(opened.about)
    # A published split stays where only folds are asked for, and published folds where only a split is.
    of_folds, of_split = folds is not None, val is not None or test is not None
    keep = {column for column, asked in (("split", of_split), ("fold", of_folds)) if ORIGINS[column] in about and not asked}
    keep = keep if of_folds or of_split else set()
    change: dict[str, dict[str, Any]] = {"folds": {"count": folds, "seed": seed}, "split": {"val": val, "test": test, "seed": seed}}
    recipe = _changed(opened, {"split": {}, "folds": {}} | {key: change[key] for key in change if _COLUMNS[key] not in keep})
    if "steps_digest" not in about or "raw_digest" not in about:
        raise UserError(out, "was built by an older usdata, which did not write what a split needs", "build it again with this one")
    columns = ["video_id", "label", "duplicate_group", "split", "fold"]
    frames = manifest.read_table(out, manifest.FRAMES).select(columns).to_pylist()
    videos = manifest.read_table(out, manifest.VIDEOS).select(["video_id", "source", "patient_id", "group_id"]).to_pylist()
    pairs = manifest.read_table(out, manifest.DUPLICATES).select(["video_id_a", "video_id_b"]).to_pylist()
    units = independent_units(videos, frames, pairs)
    group_of = {video["video_id"]: video["group_id"] for video in videos}
    unit_of = {video_id: units[group] for video_id, group in group_of.items()}
    counts = label_counts([(unit_of[frame["video_id"]], frame["label"]) for frame in frames])
    groups = len({group_of[frame["video_id"]] for frame in frames})
    _refuse_too_few(out, recipe, len(counts), groups, keep)
    fold_of, split_of = fold_of_groups(counts, recipe.folds), split_of_groups(counts, recipe.split)
    _refuse_empty(out, recipe, split_of, keep)
    new_fold = [frame["fold"] if "fold" in keep else fold_of[unit_of[frame["video_id"]]] for frame in frames]
    new_split = [frame["split"] if "split" in keep else split_of[unit_of[frame["video_id"]]] for frame in frames]
    notes = [f"the published {column} of '{about[ORIGINS[column]]['name']}' stays" for column in sorted(keep)]
    for column in sorted(ORIGINS.keys() - keep):
        if (origin := about.pop(ORIGINS[column], None)) is not None:
            notes.append(f"the published {column} of '{origin['name']}' was replaced")
    if len(counts) < groups:
        notes.append(f"{groups:,} groups stand together as {len(counts):,}, because clips of them share frames")
    about |= {"recipe": recipe.model_dump(mode="json"), "recipe_digest": recipe.digest}
    about |= identity(recipe.digest, about["steps_digest"], about["raw_digest"])
    return _written(out, opened, about, new_split, new_fold, notes, ORIGINS.keys() - keep)


_COLUMNS = {"folds": "fold", "split": "split"}


def _changed(opened: manifest.DataSet, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """The set's recipe with other values; None keeps what stands."""
    try:
        recipe = Recipe.model_validate(opened.about["recipe"])
    except (KeyError, ValidationError):
        raise UserError(opened.folder, "was built from a recipe that this usdata does not know", "build it again") from None
    values = recipe.model_dump(mode="json")
    for section, keys in changes.items():
        values[section] |= {key: value for key, value in keys.items() if value is not None}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError("--folds, --val, --test, --seed", *explain_validation(error, Recipe)) from None


def _refuse_too_few(out: Path, recipe: Recipe, units: int, groups: int, keep: set[str]) -> None:
    if "fold" in keep or recipe.folds.count == 0:
        return
    if recipe.folds.count == 1:
        raise UserError("--folds 1", "leaves nothing to train on", "give 2 or more, or 0 for none")
    if units < recipe.folds.count:
        of = f" (of {groups:,}, whose clips share frames)" if units < groups else ""
        have = f"has {units:,} independent group{'' if units == 1 else 's'}{of}, too few for {recipe.folds.count} folds"
        raise UserError(out, have, f"give --folds {units} or fewer" if units > 1 else "give --folds 0 for none")


def _refuse_empty(out: Path, recipe: Recipe, split_of: Mapping[str, str], keep: set[str]) -> None:
    wanted = {"train": 1.0, "val": recipe.split.val, "test": recipe.split.test}
    empty = [part for part, share in wanted.items() if share > 0 and part not in split_of.values()]
    if empty and "split" not in keep:
        have = f"its {len(split_of):,} independent group{'' if len(split_of) == 1 else 's'} leave {empty[0]} empty"
        raise UserError(out, have, "give larger or fewer shares, or folds instead")


def _published(out: Path, opened: manifest.DataSet, source: Published, *, apply: bool, rest: str | None, allow_leaks: bool) -> SplitResult:
    placed = place(opened, source, rest=rest)
    notes = list(source.notes)
    frames = opened.frames.copy()
    frames[source.column] = pd.Series(placed.parts, index=frames.index, dtype=object)
    if not apply:
        proof = proof_of(opened, frames, source.column)
        return SplitResult(out, opened.name, opened.digest, False, [proof], notes, placed, placed.leaks)
    if placed.unplaced:
        options = "train, val or test" if source.column == "split" else "none, or the number of a fold"
        # Frames that are named in two parts are among them: a person says where they go, not we.
        raise UserError(
            source.name,
            f"gives no part to {placed.unplaced:,} of {len(frames):,} frames ({placed.unplaced_clips:,} clips)",
            f"say where they go: --rest {options}",
        )
    if placed.leaks.any and not allow_leaks:
        counts = ", ".join(counted(number, kind) for kind, number in placed.leaks.counts.items() if number)
        raise UserError(source.name, f"leaks; in two parts stand {counts}", "look at them without --apply, or give --allow-leaks")
    origin = {"kind": "published", "name": source.name, "sha256": source.sha256, "leaks": placed.leaks.counts, "rest": rest}
    about = dict(opened.about) | {ORIGINS[source.column]: origin}
    as_numbers = [None if part is None else int(part) for part in placed.parts] if source.column == "fold" else None
    split_values = [str(part) for part in placed.parts] if source.column == "split" else opened.frames["split"].tolist()
    fold_values = as_numbers if as_numbers is not None else [None if pd.isna(fold) else int(fold) for fold in opened.frames["fold"]]
    result = _written(out, opened, about, split_values, fold_values, notes, set())
    return SplitResult(out, result.name, result.digest, result.written, result.proofs, result.notes, placed, placed.leaks)


def _written(
    out: Path,
    opened: manifest.DataSet,
    about: dict[str, Any],
    split_values: list[str],
    fold_values: list[int | None],
    notes: list[str],
    made: Set[str],
) -> SplitResult:
    """Write and prove; what was made here is put in place only if the proof holds."""
    with staged(out) as staging:
        frames = with_parts(manifest.read_table(out, manifest.FRAMES), split_values, fold_values)
        successor = write_successor(out, staging, about, {manifest.FRAMES: frames})
        # Read, because the folder is renamed.
        proofs = [prove(successor, column) for column in ("fold", "split")]
        for proof in proofs:
            if proof.leaks.any and proof.column in made:
                raise RuntimeError(f"the {proof.column}s that were made leak: {proof.statement}")  # a fault of ours
        same = successor.about == opened.about and manifest.tables_digest(out) == opened.digest
        if not same:
            if any((out / name).is_file() for name in manifest.REPORT_FILES):
                notes = [*notes, "report.html and the files with it told of the old folds and are gone: run 'usdata audit' again"]
            take_place(out, staging)
    return SplitResult(out, successor.name, successor.digest, not same, proofs, notes)
