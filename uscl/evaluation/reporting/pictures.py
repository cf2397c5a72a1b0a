"""Pictures of an evaluation: the worst mistakes and the surest right answers with their evidence, neighbours, maps of the features.

In: an evaluation, its data set and its weights again. Out: JPEG data URIs and SVG with what they show in words. The data set and the
weights are those that were evaluated, by their digests; the probes are fitted again, and drawn only where they give the probabilities that
were written.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from uscl.backbones import Backbone, ResNet
from uscl.config import BACKBONES
from uscl.evaluation.features import pooled_features, weights_digest
from uscl.evaluation.report import called, percent
from uscl.evaluation.reporting import charts
from uscl.evaluation.reporting.collection import Evaluation, main_entries
from uscl.evaluation.reporting.feature_map import principal_components, tsne
from uscl.evaluation.reporting.heat import evidence, fit_probe, last_maps, share_outside
from uscl.evaluation.reporting.neighbours import nearest_videos, shared_by_neighbours
from uscl.evaluation.selection import column_values
from uscl.field_of_view import field_of_view_mask
from uscl.frames import FrameStore, open_store, read_gray
from uscl.models import load_backbone
from usdata.errors import DataSetError, UserError, nearest
from usdata.manifest import DataSet, is_inside

MISTAKES = 12
MISTAKES_WITH_HEAT = 6
SUREST = 6
QUERIES = 4
NEIGHBOURS = 5
NEIGHBOURS_COUNTED = 10
MAP_FRAMES = 1500
OUTSIDE_FRAMES = 400
THUMBNAIL_HEIGHT = 160
THUMBNAIL_ASPECT = (0.6, 1.8)
JPEG_QUALITY = 80
HEAT_OPACITY = 0.65
OUTLINE_SIDE = 4 * THUMBNAIL_HEIGHT
OUTLINE = (215, 195, 90)  # blue, green, red
# Probabilities of a probe that was fitted again on another machine differ by the solver's tolerance, not by more.
TOLERANCE = 0.01
MOST_VALUES = charts.COLOURS
NOT_KNOWN = "not known"


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
class FeatureMap:
    """Maps of one of the weights' features, coloured by a column.

    Attributes:
        weights: Whose.
        column: Of the manifest.
        drawings: Name of the method and its picture.
        legend: Of the colours.
        near: Share of nearest frames of other groups with the same value, and of any frames; None: cannot be told.
    """

    weights: str
    column: str
    drawings: list[tuple[str, Markup]]
    legend: Markup
    near: tuple[float, float] | None


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
    return OfWeights(weights, [_shown(entry, _data_uri(thumbnail(dataset, rows[str(entry["frame_id"])]))) for entry in found])


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
        mapped, unmapped = _maps(name, own, pooled[name], dataset, rows, ["label", *(column for column in colours if column != "label")])
        maps += mapped
        notes += [line for line in [*said, *unmapped] if line not in notes]
        advance(1)
    if summary["settings"]["kind"] == "finetune" and pooled:
        notes.append("Neighbours and maps are of the features before fine-tuning: the trained networks are not kept.")
    galleries = _galleries(evaluation, of_weights, pooled, dataset, rows_of)
    return Pictures(of_weights, galleries, maps, notes)


def thumbnail(dataset: DataSet, row: int) -> NDArray[np.uint8]:
    """(160, w, 3) the frame as the data set stores it, in its own proportions (0.6 to 1.8 at most)."""
    path = str(dataset.frames["path"].iloc[row])
    if not is_inside(path):
        raise DataSetError(dataset.folder, f"its manifest names an image outside the set ({path})", "do not use this data set")
    gray = read_gray(dataset.folder / path)
    aspect = float(np.clip(gray.shape[1] / gray.shape[0], *THUMBNAIL_ASPECT))
    shrinks = gray.shape[0] > THUMBNAIL_HEIGHT
    way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    small = cv2.resize(gray, (round(THUMBNAIL_HEIGHT * aspect), THUMBNAIL_HEIGHT), interpolation=way)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def overlaid(
    small: NDArray[np.uint8], heat: NDArray[np.float32], inside: NDArray[np.bool_] | None, finer: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """A thumbnail (h, w, 3) under its heat (size, size), which is left out outside the field of view, whose outline is drawn.

    Args:
        small: The thumbnail.
        heat: (size, size), never negative.
        inside: (size, size) the field of view; None: not known, and all heat is drawn.
        finer: The same with more pixels, for a smooth edge.

    The heat is scaled to its own largest value inside, so colours tell where, not how much.
    """
    height, width = small.shape[:2]
    # The largest value inside sets the scale; what is outside is cut off after the resizing, so that the edge keeps its heat.
    largest = float(heat.max() if inside is None else np.where(inside, heat, 0).max())
    scaled = cv2.resize(np.asarray(heat / max(largest, 1e-12), dtype=np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    mask = (
        None
        if inside is None
        else cv2.resize((inside if finer is None else finer).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    )
    if mask is not None:
        scaled = np.where(mask >= 0.5, scaled, 0)
    coloured = cv2.applyColorMap(np.asarray(255 * np.clip(scaled, 0, 1), dtype=np.uint8), cv2.COLORMAP_INFERNO)
    opacity = (HEAT_OPACITY * np.clip(scaled, 0, 1))[..., None]
    mixed = np.asarray(np.round(small * (1 - opacity) + coloured * opacity), dtype=np.uint8)
    if mask is not None:
        contours, _ = cv2.findContours((mask >= 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mixed, contours, -1, OUTLINE, 1)
    return mixed


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


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


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
        plain = _shown(entry, _data_uri(small))
        if number not in heats:
            return plain
        heat, inside = heats[number]
        share = share_outside(heat, inside) if inside is not None else None
        outline = mask(int(rows[number]), OUTLINE_SIDE) if mask is not None else None
        return Shown(
            **{**vars(plain), "heat": _data_uri(overlaid(small, heat, inside, outline)), "outside": share, "silent": not heat.any()}
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
                            picture=_data_uri(thumbnail(dataset, rows_of[str(frame_ids[row])])),
                            cosine=cosine,
                        )
                        for row, cosine in near
                    ],
                )
            )
        found.append(Gallery(query, rows))
    return found


def _maps(
    name: str, own: pd.DataFrame, features: NDArray[np.float32], dataset: DataSet, rows: NDArray[np.int64], columns: Sequence[str]
) -> tuple[list[FeatureMap], list[str]]:
    """Maps by principal components and t-SNE, coloured by each of the columns; and what could not be drawn."""
    kept = np.linspace(0, len(rows) - 1, min(MAP_FRAMES, len(rows))).astype(int)
    features, frames = features[kept], dataset.frames.iloc[rows[kept]]
    groups = own["independent_group"].to_numpy(dtype=str)[kept]
    flat, shares = principal_components(features)
    places = {"principal components": flat}
    if (curved := tsne(features)) is not None:
        places["t-SNE"] = curved
    found, notes = [], []
    for column in columns:
        values = value_names(column_values(dataset, frames, column))
        names, counts = np.unique(values, return_counts=True)
        order = sorted(range(len(names)), key=lambda place: (-counts[place], names[place])) if not _binned(names) else range(len(names))
        names = names[list(order)]
        if len(names) < 2:
            notes.append(f"No map by {column}: it is '{names[0]}' for every frame.")
            continue
        number_of = {text: number for number, text in enumerate(names.tolist())}
        which = np.array([number_of[text] for text in values.tolist()], dtype=np.int64)
        near = shared_by_neighbours(features, groups, values, NEIGHBOURS_COUNTED)
        drawings = []
        for method, place in places.items():
            told = f" ({percent(shares[0])} and {percent(shares[1])} % of the variance)" if method == "principal components" else ""
            shown = ", ".join(names[:MOST_VALUES])
            said = f"{len(place)} frames by {method} of the features of {called(name)}{told}, coloured by {column}: {shown}"
            drawings.append((f"{method}{told}", charts.feature_map(place, which, said=said)))
        found.append(FeatureMap(name, column, drawings, charts.legend(names.tolist()), near))
    return found, notes


def value_names(values: pd.Series) -> NDArray[np.str_]:
    """(n,) what each value of a column is called: lists joined, more than seven numbers cut into five parts of equal size."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and values.nunique() > MOST_VALUES:
        edges = np.unique(np.quantile(values.dropna().to_numpy(dtype=np.float64), np.linspace(0, 1, 6)))
        part = np.clip(np.searchsorted(edges, values.to_numpy(dtype=np.float64, na_value=np.nan), side="right") - 1, 0, len(edges) - 2)
        texts = [f"{number + 1}: {edges[number]:.4g} to {edges[number + 1]:.4g}" for number in range(len(edges) - 1)]
        return np.array([NOT_KNOWN if pd.isna(value) else texts[place] for value, place in zip(values, part, strict=True)], dtype=str)
    return np.array([_value_name(value) for value in values], dtype=str)


def _value_name(value: object) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(sorted(str(member) for member in value)) or "none"
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return NOT_KNOWN
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _binned(names: NDArray[np.str_]) -> bool:
    return all(name == NOT_KNOWN or name[:2] == f"{place + 1}:" for place, name in enumerate(names.tolist()))
