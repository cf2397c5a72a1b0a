"""Pictures of an evaluation: the worst mistakes and the surest right answers with their evidence, neighbours, maps of the features.

In: an evaluation, its data set and its weights again. Out: JPEG data URIs and SVG with what they show in words. The data set and the
weights are those that were evaluated, by their digests; the probes are fitted again, and drawn only where they give the probabilities that
were written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.backbones import Backbone, ResNet
from uscl.config import BACKBONES
from uscl.evaluation.features import pooled_features, weights_digest
from uscl.evaluation.folds import EXTERNAL
from uscl.evaluation.report import called, percent
from uscl.evaluation.reporting.collection import Evaluation, main_entries
from uscl.evaluation.reporting.coloured_maps import NEIGHBOURS_COUNTED, FeatureMap, draw_maps
from uscl.evaluation.reporting.heat import evidence, fit_probe, last_maps, share_outside
from uscl.evaluation.reporting.neighbours import nearest_videos
from uscl.evaluation.reporting.thumbnails import OUTLINE_SIDE, data_uri, overlaid, thumbnail
from uscl.field_of_view import field_of_view_mask
from uscl.frames import FrameStore, open_store
from uscl.models import load_backbone
from usdata.errors import UserError, nearest
from usdata.manifest import DataSet

MISTAKES = 12
MISTAKES_WITH_HEAT = 6
SUREST = 6
QUERIES = 4
NEIGHBOURS = 5
OUTSIDE_FRAMES = 400
# Probabilities of a probe that was fitted again on another machine differ by the solver's tolerance, not by more.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Shown:
    """A frame with what was said of it.

    Attributes:
        frame_id: Of the frame.
        group: Its independent group.
        label: The truth.
        predicted: The class it was given; "" where it was asked about nothing.
        confidence: That class' probability.
        picture: JPEG data URI.
        heat: The same with the evidence for the predicted class inside the field of view; None: not drawn.
        outside: Share of the evidence outside the field of view; None: not known.
        silent: No place speaks for the predicted class more than in a usual frame.
        cosine: To the query, of a neighbour.
    """

    frame_id: str
    group: str
    label: str
    predicted: str = ""
    confidence: float | None = None
    picture: str = ""
    heat: str | None = None
    outside: float | None = None
    silent: bool = False
    cosine: float | None = None


@dataclass(frozen=True)
class Outside:
    """How much of the evidence lies outside the field of view, mean over frames.

    Attributes:
        evidence: Share of the evidence, 0 to 1.
        area: Share of the picture, 0 to 1: what evidence spread evenly would give.
        frames: How many frames were looked at.
        cells: Height and width of the network's last map.
    """

    evidence: float
    area: float
    frames: int
    cells: tuple[int, int]


@dataclass(frozen=True)
class OfWeights:
    """Pictures of one of the weights."""

    name: str
    mistakes: list[Shown]
    surest: list[Shown] = field(default_factory=list)
    outside: Outside | None = None
    cells: tuple[int, int] | None = None


@dataclass(frozen=True)
class Gallery:
    """A frame, and for each of the weights its nearest frames of other groups."""

    query: Shown
    rows: list[tuple[str, list[Shown]]]


@dataclass(frozen=True)
class Pictures:
    """All pictures of an evaluation, and what could not be drawn."""

    of_weights: list[OfWeights]
    galleries: list[Gallery] = field(default_factory=list)
    maps: list[FeatureMap] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def findings(self) -> list[str]:
        """Sentences with the numbers that the pictures hold."""
        found = []
        for own in self.of_weights:
            if own.outside is not None:
                about = own.outside
                found.append(
                    f"{percent(about.evidence)} % of the evidence of {called(own.name)} lies outside the field of view, which is"
                    f" {percent(about.area)} % of the picture (mean over {about.frames} held-out frames)."
                )
        for drawn in self.maps:
            if drawn.near is not None:
                near, chance = drawn.near
                found.append(
                    f"By {called(drawn.weights)}, {percent(near)} % of the {NEIGHBOURS_COUNTED} nearest frames of other groups have a"
                    f" frame's {drawn.column}; of any frames of other groups {percent(chance)} % have."
                )
        return found


def chosen(predictions: pd.DataFrame, weights: str, *, right: bool, count: int) -> pd.DataFrame:
    """Held-out frames with the highest confidence under seed 0, one a video, the surest first; with a column `confidence`.

    Args:
        predictions: Of the evaluation.
        weights: Whose.
        right: Those with the right class, equally many of each class as far as there are; else those with a wrong one.
        count: How many at most.
    """
    own = predictions[(predictions["weights"] == weights) & (predictions["seed"] == 0)]
    confidence = own[[column for column in own.columns if column.startswith("probability_")]].max(axis=1)
    found = own.assign(confidence=confidence)[(own["label"] == own["predicted"]) == right]
    found = found.sort_values(["confidence", "frame_id"], ascending=[False, True]).groupby("video_id", sort=False).head(1)
    if right:
        found = found.assign(turn=found.groupby("label", sort=False).cumcount()).sort_values("turn", kind="stable")
    return found.head(count)


def worst_mistakes(evaluation: Evaluation, weights: str, dataset: DataSet, count: int = MISTAKES) -> OfWeights:
    """The frames with the highest confidence in a wrong class, with their pictures and without heat."""
    rows = _row_numbers(dataset)
    found = chosen(evaluation.predictions, weights, right=False, count=count).to_dict("records")
    return OfWeights(weights, [_shown(entry, data_uri(thumbnail(dataset, rows[str(entry["frame_id"])]))) for entry in found])


def named_mistakes(evaluation: Evaluation, weights: str, count: int = MISTAKES) -> OfWeights:
    """The same without pictures, where the data set is not at hand."""
    found = chosen(evaluation.predictions, weights, right=False, count=count).to_dict("records")
    return OfWeights(weights, [_shown(entry, "") for entry in found])


def matching_weights(evaluations: Sequence[Evaluation], words: Sequence[str]) -> dict[str, tuple[str, str]]:
    """By digest, the word and the architecture that give each of the evaluated weights again.

    Args:
        evaluations: Whose weights.
        words: Run folders and files. Random and published weights need no word.

    Raises:
        UserError: A word gives weights that were not evaluated.
    """
    entries = [entry["provenance"] for evaluation in evaluations for entry in evaluation.summary["weights"]]
    found = {
        entry["weights_sha256"]: (str(entry["kind"]), str(entry["backbone"]))
        for entry in entries
        if entry["kind"] in ("random", "imagenet")
    }
    architectures = sorted({str(entry["backbone"]) for entry in entries} | {BACKBONES[0]})
    digests = {entry["weights_sha256"] for entry in entries}
    for word in words:
        for architecture in architectures:
            digest = weights_digest(load_backbone(word, name=architecture)[0])
            if digest in digests:
                found[digest] = (word, architecture)
                break
        else:
            raise UserError(f"--weights {word}", "was not evaluated here, by the digest of its tensors", "give those that were evaluated")
    return found


def draw(
    evaluation: Evaluation,
    dataset: DataSet,
    weights: Mapping[str, tuple[str, str]],
    colours: Sequence[str],
    advance: Callable[[int], None] = lambda count: None,
) -> Pictures:
    """All pictures of an evaluation.

    Args:
        evaluation: It.
        dataset: The data set that was evaluated.
        weights: By digest, from `matching_weights`; those that are missing are left out, with a note.
        colours: Columns of frames.parquet or videos.parquet to colour maps by, beside the label.
        advance: Told of each of the weights that is done.

    Raises:
        UserError: It is another data set, or has no such column.
    """
    summary = evaluation.summary
    if summary["dataset"]["digest"] != dataset.digest:
        raise UserError(dataset.folder, f"is not the data set of {evaluation.name}, by its digest", "give the one that was evaluated")
    known = [*dataset.frames.columns, *dataset.videos.columns]
    for column in colours:
        if column not in known:
            raise UserError(f"--colour {column}", "is no column of the data set", nearest(column, known))
    if summary["settings"]["kind"] == EXTERNAL:
        names = [str(entry["name"]) for entry in main_entries(summary)]
        advance(len(names))
        note = "Mistakes alone are drawn of classifiers that were fitted elsewhere: no evidence, neighbours or maps."
        return Pictures([worst_mistakes(evaluation, name, dataset) for name in names], notes=[note])
    store = open_store(dataset, size=int(summary["settings"]["image_size"]))
    rows_of = _row_numbers(dataset)
    of_weights, maps, notes = [], [], []
    pooled: dict[str, NDArray[np.float32]] = {}
    for entry in main_entries(summary):
        name, provenance = str(entry["name"]), entry["provenance"]
        own = evaluation.predictions[(evaluation.predictions["weights"] == name) & (evaluation.predictions["seed"] == 0)]
        if provenance["weights_sha256"] not in weights:
            notes.append(f"No pictures of {called(name)}: its file was not given (--weights).")
            of_weights.append(worst_mistakes(evaluation, name, dataset))
            advance(1)
            continue
        word, architecture = weights[provenance["weights_sha256"]]
        backbone, _ = load_backbone(word, name=architecture, seed=provenance["seed"] or 0, image_size=store.size)
        rows: NDArray[np.int64] = np.array([rows_of[frame_id] for frame_id in own["frame_id"]], dtype=np.int64)
        pooled[name] = pooled_features(backbone, store, rows, name=called(name))
        drawn, said = _with_heat(evaluation, name, own, backbone, pooled[name], dataset, store, rows)
        of_weights.append(drawn)
        mapped, unmapped = draw_maps(
            name, own, pooled[name], dataset, rows, ["label", *(column for column in colours if column != "label")]
        )
        maps += mapped
        notes += [line for line in [*said, *unmapped] if line not in notes]
        advance(1)
    if summary["settings"]["kind"] == "finetune" and pooled:
        notes.append("Neighbours and maps are of the features before fine-tuning: the trained networks are not kept.")
    galleries = _galleries(evaluation, of_weights, pooled, dataset, rows_of)
    return Pictures(of_weights, galleries, maps, notes)


def _row_numbers(dataset: DataSet) -> dict[str, int]:
    return {str(frame_id): row for row, frame_id in enumerate(dataset.frames["frame_id"])}


def _shown(entry: Mapping[Any, Any], picture: str) -> Shown:
    return Shown(
        frame_id=str(entry["frame_id"]),
        group=str(entry["independent_group"]),
        label=str(entry["label"]),
        predicted=str(entry["predicted"]),
        confidence=float(entry["confidence"]),
        picture=picture,
    )


def _masks(dataset: DataSet, store: FrameStore) -> Callable[..., NDArray[np.bool_] | None]:
    """From a row of frames, and a size (the store's by default), to its field of view at that size."""
    geometry = dataset.videos.set_index("video_id")["fov_stored_geometry"]
    frames = dataset.frames

    def mask(row: int, size: int = store.size) -> NDArray[np.bool_] | None:
        video, width, height = (frames[name].iloc[row] for name in ("video_id", "width", "height"))
        text = geometry.get(video)
        box = store.boxes[row] * size / store.size
        return field_of_view_mask(text if isinstance(text, str) else None, box, int(width), int(height), size)

    return mask


def _with_heat(
    evaluation: Evaluation,
    name: str,
    own: pd.DataFrame,
    backbone: Backbone,
    features: NDArray[np.float32],
    dataset: DataSet,
    store: FrameStore,
    rows: NDArray[np.int64],
) -> tuple[OfWeights, list[str]]:
    """The worst mistakes and the surest right answers; where the probe is linear and the network residual, with their evidence."""
    mistakes = chosen(evaluation.predictions, name, right=False, count=MISTAKES_WITH_HEAT)
    surest = chosen(evaluation.predictions, name, right=True, count=SUREST)
    position = {str(frame_id): number for number, frame_id in enumerate(own["frame_id"])}
    shown = {str(entry["frame_id"]): entry for entry in [*mistakes.to_dict("records"), *surest.to_dict("records")]}
    wanted_pictures = {position[frame_id] for frame_id in shown}
    folds = own["fold"].to_numpy(dtype=np.int64)
    note = ""
    heats: dict[int, tuple[NDArray[np.float32], NDArray[np.bool_] | None]] = {}
    outside, cells, mask = None, None, None
    kind = evaluation.summary["settings"]["kind"]
    if kind != "linear" or not isinstance(backbone, ResNet):
        note = (
            f"No evidence is drawn for {called(name)}: it is exact for a linear probe of a residual network, and is drawn for those alone."
        )
    else:
        weights, furthest = _probe_rows(evaluation, own, features)
        if furthest > TOLERANCE:
            note = f"No evidence is drawn for {called(name)}: fitted again, its probes differ from what was written by {furthest:.2g}."
        else:
            mask = _masks(dataset, store)
            sampled = set(np.linspace(0, len(rows) - 1, min(OUTSIDE_FRAMES, len(rows))).astype(int).tolist())
            wanted = np.array(sorted(sampled | wanted_pictures), dtype=np.int64)
            maps = last_maps(backbone, store, rows[wanted])
            cells = (int(maps.shape[2]), int(maps.shape[3]))
            shares, areas = [], []
            for number, heat in zip(wanted.tolist(), evidence(maps, weights[wanted], folds[wanted], store.size), strict=True):
                inside = mask(int(rows[number]))
                if number in sampled and inside is not None and (share := share_outside(heat, inside)) is not None:
                    shares.append(share)
                    areas.append(float((~inside).mean()))
                if number in wanted_pictures:
                    heats[number] = (heat, inside)
            if shares:
                outside = Outside(float(np.mean(shares)), float(np.mean(areas)), len(shares), cells)

    def picture(entry: Mapping[Any, Any]) -> Shown:
        number = position[str(entry["frame_id"])]
        small = thumbnail(dataset, int(rows[number]))
        plain = _shown(entry, data_uri(small))
        if number not in heats:
            return plain
        heat, inside = heats[number]
        share = share_outside(heat, inside) if inside is not None else None
        outline = mask(int(rows[number]), OUTLINE_SIDE) if mask is not None else None
        return Shown(
            **{**vars(plain), "heat": data_uri(overlaid(small, heat, inside, outline)), "outside": share, "silent": not heat.any()}
        )

    drawn = [[picture(entry) for entry in table.to_dict("records")] for table in (mistakes, surest)]
    return OfWeights(name, drawn[0], drawn[1], outside, cells), [note] if note else []


def _probe_rows(evaluation: Evaluation, own: pd.DataFrame, features: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Of each frame the probe's weights (n, width) for the class it was given, by the fold that held it out; and how far the probabilities
    of the probes are from those written, at most."""
    classes = evaluation.summary["dataset"]["classes"]
    labels = np.array([classes.index(label) for label in own["label"]], dtype=np.int64)
    written = own[[f"probability_{name}" for name in classes]].to_numpy(dtype=np.float64)
    folds = own["fold"].to_numpy()
    weights, furthest = np.zeros((len(own), features.shape[1])), 0.0
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(np.unique(labels[train])) < len(classes):
            return weights, 1.0  # a class that no probe knows has no evidence
        probe = fit_probe(features[train], labels[train], len(classes))
        furthest = max(furthest, float(np.abs(probe.probabilities(features[test]) - written[test]).max()))
        weights[test] = probe.weight[written[test].argmax(axis=1)]
    return weights, furthest


def _galleries(
    evaluation: Evaluation,
    of_weights: Sequence[OfWeights],
    pooled: Mapping[str, NDArray[np.float32]],
    dataset: DataSet,
    rows_of: Mapping[str, int],
) -> list[Gallery]:
    """Neighbours of the last weights' worst mistakes and surest right answers, by each of the weights."""
    if not pooled:
        return []
    last = next(own for own in reversed(of_weights) if own.name in pooled)
    queries = [*last.mistakes[: QUERIES // 2], *last.surest[: QUERIES - len(last.mistakes[: QUERIES // 2])]]
    own = evaluation.predictions[(evaluation.predictions["weights"] == last.name) & (evaluation.predictions["seed"] == 0)]
    frame_ids, labels, groups, videos = (
        own[name].astype(str).to_numpy(dtype=str) for name in ("frame_id", "label", "independent_group", "video_id")
    )
    found = []
    for query in queries:
        place = int(np.flatnonzero(frame_ids == query.frame_id)[0])
        rows = []
        for name, features in pooled.items():
            near = nearest_videos(features, groups, videos, place, NEIGHBOURS)
            rows.append(
                (
                    name,
                    [
                        Shown(
                            frame_id=str(frame_ids[row]),
                            group=str(groups[row]),
                            label=str(labels[row]),
                            picture=data_uri(thumbnail(dataset, rows_of[str(frame_ids[row])])),
                            cosine=cosine,
                        )
                        for row, cosine in near
                    ],
                )
            )
        found.append(Gallery(query, rows))
    return found
