"""The honest protocol and the published one: what each fits, which epoch it takes, how its folds are made, and how it is told.

In: what the user asked for. Out: the `Row`s of the evaluation, one for each way of judging the weights, and their figures side by side in
one `evaluation.json`. A row whose figures are better than the weights would be on new patients says so in its title, everywhere.

The published protocol of USCL trains by `finetune.PUBLISHED`, keeps the epoch that is best on the fold that it reports, and adds up the
matrices of these epochs. Beside it stands the last epoch of the very same training, so that their difference is that choice and nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.evaluation.finetune import HONEST, PUBLISHED, BatchNorm, TrainedLayers, Training
from uscl.evaluation.folds import EXTERNAL, Folds, FoldsBy, count_leaks
from uscl.evaluation.summary import Held
from usdata.errors import UserError

Protocol = Literal["honest", "published", "both"]
CUT = {
    "frame": "folds by frame: frames of one video stand in training and in test",
    "video": "folds by video: videos of one patient stand in training and in test",
    "set": "the data set's own folds, taken as they are",
}
# What is said of weights that were trained on clips evaluated here, and let through by name.
SEEN = "has seen test clips"
IN_TITLE = {"frame": ", folds by frame", "video": ", folds by video", "set": ", the set's folds", "group": ""}
# The second is of classifiers that were fitted elsewhere, see `uscl.evaluation.external`.
MAIN_TITLES = {"honest": "honest protocol", EXTERNAL: "external validation"}
# What a difference between the epoch chosen on the test fold and the last one of the same training is of.
SELECTION = "selection"
# From held-out probabilities, names and folds to what `evaluation.json` says of them.
Summarise = Callable[[Sequence[Held], Sequence[str], Mapping[str, str], Sequence[Folds]], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One way of judging all weights.

    Attributes:
        key: "honest", "published", "published-last-epoch", or "external".
        folds_by: How its folds are made; "group" alone is free of leakage.
        training: How it fine-tunes; None: a probe of frozen features.
        epoch: Which epoch is judged: the last ("fixed"), or the best on a part of the training folds ("validation") or on the test fold.
    """

    key: str
    folds_by: FoldsBy = "group"
    training: Training | None = None
    epoch: Literal["fixed", "validation", "test"] = "fixed"

    @property
    def optimistic(self) -> bool:
        """Its figures are better than they would be on new patients, by how it judges."""
        return self.epoch == "test" or self.folds_by != "group"

    @property
    def title(self) -> str:
        """What it is called in a sentence; nothing for the honest protocol and for external validation."""
        return f"{self._what()}{' (optimistic)' if self.optimistic else ''}"

    def name(self, weights: str, seen: Collection[str] = ()) -> str:
        """How weights are called in results when they are judged this way: the warning comes first, where a name may be cut short.

        Args:
            weights: Their own name.
            seen: Weights that have seen clips that are evaluated, and are let through.
        """
        told = [what for what in (self._what(), SEEN if weights in seen else "") if what]
        return f"{weights} ({'optimistic: ' if self.optimistic or weights in seen else ''}{', '.join(told)})" if told else weights

    def _what(self) -> str:
        told = {"published": "published protocol", "published-last-epoch": "published training, last epoch"}
        return f"{told.get(self.key, '')}{IN_TITLE[self.folds_by]}"

    def reasons(self) -> list[str]:
        """Why it is optimistic."""
        found = [CUT[self.folds_by]] if self.folds_by != "group" else []
        if self.epoch == "test" and self.training is not None:
            found.append(f"the best of {self.training.epochs} epochs is chosen on each test fold")
        return found


def plan_rows(
    kind: str,
    *,
    protocol: Protocol = "honest",
    folds_by: FoldsBy = "group",
    epochs: int | None = None,
    choose_epochs: bool = False,
    trained_layers: TrainedLayers | None = None,
    batch_norm: BatchNorm | None = None,
    label_shares: Sequence[float] | None = None,
) -> list[Row]:
    """The rows of an evaluation, the main one first.

    Raises:
        UserError: What was asked for contradicts itself, or would make figures optimistic that are not named so.
    """
    if protocol == "honest" and folds_by != "group":
        reason = f"would let figures be called honest that are not ({CUT[folds_by]})"
        raise UserError(f"--folds-by {folds_by}", reason, "add --protocol published (or both), which marks them")
    if protocol == "published" and (choose_epochs or label_shares is not None):
        option = "--choose-epochs" if choose_epochs else "--label-shares"
        raise UserError(option, "is of the honest protocol", "use --protocol honest or both")
    if kind != "finetune":
        _refuse_for_probes(kind, protocol, folds_by, choose_epochs, trained_layers, batch_norm)
        leaky = [Row("published", folds_by)] if protocol != "honest" else []
        return [*([Row("honest")] if protocol != "published" else []), *leaky]
    if choose_epochs and label_shares is not None:
        raise UserError("--choose-epochs", "needs groups that a small share of the labels does not have", "leave out it, or --label-shares")
    if trained_layers == "all" and batch_norm is not None:
        raise UserError(f"--batch-norm {batch_norm}", "is of frozen layers, and --trained-layers all freezes none", "leave it out")
    honest, published = (_trained(preset, epochs, trained_layers, batch_norm) for preset in (HONEST, PUBLISHED))
    rows = [Row("honest", training=honest, epoch="validation" if choose_epochs else "fixed")] if protocol != "published" else []
    if protocol != "honest":
        rows += [Row("published", folds_by, published, "test"), Row("published-last-epoch", folds_by, published)]
    return rows


def _refuse_for_probes(
    kind: str,
    protocol: str,
    folds_by: str,
    choose_epochs: bool,
    trained_layers: str | None,
    batch_norm: str | None,
) -> None:
    if protocol != "honest" and folds_by == "group":
        reason = f"has no epoch to choose in {kind}, so that it would be the honest one"
        raise UserError(f"--protocol {protocol}", reason, "add --folds-by frame or video for folds as published, or evaluate finetune")
    for option, given in (("--choose-epochs", choose_epochs), ("--trained-layers", trained_layers), ("--batch-norm", batch_norm)):
        if given:
            raise UserError(option, f"is of finetune, and {kind} trains no layers", "leave it out")


def _trained(preset: Training, epochs: int | None, trained_layers: TrainedLayers | None, batch_norm: BatchNorm | None) -> Training:
    training = replace(
        preset,
        epochs=preset.epochs if epochs is None else epochs,
        trained_layers=preset.trained_layers if trained_layers is None else trained_layers,
        batch_norm=preset.batch_norm if batch_norm is None else batch_norm,
    )
    return replace(training, views="light") if preset is HONEST and trained_layers == "all" else training


def trained_alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that one training serves, together: they differ in the epoch that is taken."""
    found: list[list[Row]] = []
    for row in rows:
        same = next((others for others in found if (others[0].folds_by, others[0].training) == (row.folds_by, row.training)), None)
        if same is not None and "validation" not in (row.epoch, same[0].epoch):
            same.append(row)
        else:
            found.append([row])
    return found


def summarise_rows(
    rows: Sequence[Row],
    names: Sequence[str],
    held: Mapping[str, Sequence[Held]],
    divisions: Mapping[FoldsBy, Sequence[Folds]],
    chosen: Mapping[str, Sequence[Mapping[str, Any]]],
    summarise: Summarise,
    *,
    frames: pd.DataFrame,
    groups: NDArray[np.str_],
    duplicates: pd.DataFrame,
    seen: Collection[str] = (),
) -> dict[str, Any]:
    """One `evaluation.json` of all rows.

    The main row's own summary, to which the others' weights and differences are added, under names with their titles. New keys: `protocols`
    (for each row: what it is, why it is optimistic, what leaks, its folds and chosen epochs) and, in each of `weights`, `weights`,
    `protocol` and `optimistic`; a difference has its row's key as `protocol`, or "selection" where it is what choosing the epoch adds, and
    `optimistic` where either side is.

    Args:
        rows: The main one first.
        names: Of the weights.
        held: By row's key; each under the weights' own name.
        divisions: By how folds are made, one a seed.
        chosen: By row's key, the epochs taken, where they were chosen.
        summarise: See `Summarise`; its third argument maps each name to the weights' own.
        frames: The evaluated frames.
        groups: (n,) their independent groups.
        duplicates: `duplicates.parquet`.
        seen: Names of weights that have seen clips that are evaluated, and are let through.
    """
    whole: dict[str, Any] = {}
    protocols = []
    for row in rows:
        own_names = {name: name for name in names}
        told = summarise(held[row.key], list(names), own_names, divisions[row.folds_by])
        for entry in told["weights"]:
            own = entry["name"]
            optimistic = row.optimistic or own in seen
            entry |= {"weights": own, "protocol": row.key, "optimistic": optimistic, "name": row.name(own, seen)}
        for each in [*told["differences"], *told["pairs"]]:
            optimistic = row.optimistic or each["weights"] in seen or each["reference"] in seen
            each |= {"weights": row.name(each["weights"], seen), "reference": row.name(each["reference"], seen)}
            each |= {"protocol": row.key, "optimistic": optimistic}
        if told["reference"] is not None:
            told["reference"] = row.name(told["reference"], seen)
        protocols.append(_told(row, told["folds"], divisions[row.folds_by], chosen[row.key], frames, groups, duplicates))
        if not whole:
            whole = told
        else:
            whole["weights"] += told["weights"]
            whole["differences"] += told["differences"]
            whole["pairs"] += told["pairs"]
    by_key = {row.key: row for row in rows}
    if "published-last-epoch" in by_key:
        last, best = by_key["published-last-epoch"], by_key["published"]
        for name in names:
            both = {last.name(name, seen): name, best.name(name, seen): name}
            found = [replace(each, weights=row.name(name, seen)) for row in (last, best) for each in held[row.key] if each.weights == name]
            selection = summarise(found, list(both), both, divisions[best.folds_by])["differences"]
            whole["differences"] += [{**each, "protocol": SELECTION, "optimistic": True} for each in selection]
    whole["protocols"] = protocols
    whole["notes"] = [*_notes(protocols, names), *whole["notes"]]
    return whole


def _told(
    row: Row,
    folds: list[dict[str, Any]],
    divisions: Sequence[Folds],
    chosen: Sequence[Mapping[str, Any]],
    frames: pd.DataFrame,
    groups: NDArray[np.str_],
    duplicates: pd.DataFrame,
) -> dict[str, Any]:
    leaks = [] if row.folds_by == "group" else [count_leaks(frames, division.fold, groups, duplicates) for division in divisions]
    standard = {"honest": HONEST}.get(row.key, PUBLISHED)
    changed = [] if row.training is None else _changed(row.training, standard)
    return {
        "key": row.key,
        "title": row.title or MAIN_TITLES[row.key],
        "optimistic": row.optimistic,
        "reasons": row.reasons(),
        "folds_by": row.folds_by,
        "epoch": row.epoch if row.training is not None else None,
        "training": asdict(row.training) if row.training is not None else None,
        "changed": changed,
        "folds": folds,
        "leaks": [{"seed": division.seed, **leak} for division, leak in zip(divisions, leaks, strict=False)],
        "chosen_epochs": [dict(each) for each in chosen],
    }


def _changed(training: Training, standard: Training) -> list[str]:
    """In which settings a training is not the protocol's own, for people."""
    pairs = [(field.name, getattr(training, field.name), getattr(standard, field.name)) for field in fields(training)]
    return [f"{name.replace('_', ' ')} {value} in place of {usual}" for name, value, usual in pairs if value != usual]


def _notes(protocols: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    notes = []
    for told in protocols:
        if told["optimistic"]:
            leaks = told["leaks"]
            cut = f" ({leaks[0]['independent_groups']} independent groups stand on both sides)" if leaks else ""
            notes.append(f"Figures of the {told['title']} are not what new patients would give: {'; '.join(told['reasons'])}{cut}.")
        if told["key"] == "published" and told["changed"]:
            notes.append(f"The published protocol was changed: {', '.join(told['changed'])}.")
    return notes
