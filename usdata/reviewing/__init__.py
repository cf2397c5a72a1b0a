"""Looking at what the build was not sure of: a page to answer on, and the answers read back into the data set.

The page is one HTML file that opens without a network. It shows each clip that waits (frames of the raw clip, since a clip that was held
back has none in the data set), with the field of view as it was taken (green) or as it would be proposed (orange), and what was taken for
text (red). A clip is accepted with what is outlined or with the whole picture, or rejected. The answers are a CSV; with it the data set is
built again, the answers in its recipe, so that equal input gives equal bytes as ever. Clips without an answer are taken over as they are.
"""

from __future__ import annotations

import base64
import csv
import datetime
import io
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from pydantic import ValidationError

from usdata import manifest
from usdata.building import BuildResult, answers_of, build
from usdata.building.identity import published_names
from usdata.console import progress
from usdata.errors import ReadError, UserError
from usdata.files import write_text
from usdata.imaging.decision import decide
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.geometry import Rectangle, geometry_from, geometry_json
from usdata.imaging.overlays import overlays_inside
from usdata.layouts import listed
from usdata.looking import look_at
from usdata.readers import open_clip
from usdata.readers.base import Clip
from usdata.recipe import Answer, Hygiene, Recipe

COLUMNS = ("video_id", "answer", "reviewer", "date", "geometry")
SHOWN_WIDTH = 300  # pixels of a frame on the page
SHOWN_FRAMES = 4
GREEN, ORANGE, RED = (90, 220, 90), (60, 160, 255), (60, 60, 255)  # BGR


@dataclass(frozen=True)
class ReviewPage:
    """What was written.

    Attributes:
        page: The HTML file.
        clips: Those on it.
    """

    page: Path
    clips: int


def write_page(dataset: str | Path, *, raw: str | Path, out: str | Path | None = None, everything: bool = False) -> ReviewPage:
    """Write the page for a data set's clips that wait for a person.

    Args:
        dataset: The data set folder.
        raw: The folder of raw clips that it was built from.
        out: The HTML file; by default the data set's name with "-review.html", here.
        everything: Show all clips that could be read, also those that nobody needs to look at.

    Raises:
        UserError: Nothing waits, RAW is not what the set was built from, or `out` is no HTML or lies in the data set.
    """
    folder = Path(dataset)
    opened = manifest.open_dataset(folder)
    page = Path(out) if out is not None else Path(f"{folder.resolve().name}-review.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(page, "is no name of an HTML page", "give --out NAME.html")
    if folder.resolve() in page.resolve().parents:
        raise UserError(page, "lies inside the data set", "give an --out elsewhere: a data set holds what its recipe made alone")
    videos = opened.videos.sort_values(["source", "video_id"])
    wanted = videos[videos["frames_decoded"] > 0] if everything else videos[videos["review"] == "needed"]
    if wanted.empty:
        raise UserError(folder, "no clip of it waits for a review", "see all of them with --all")
    recipe = _recipe_of(opened)
    paths = {row.video_id: row.path for row in listed(recipe, Path(raw)).rows}
    if missing := [video_id for video_id in wanted["video_id"] if video_id not in paths]:
        raise UserError(missing[0], f"is not among the clips under {raw}", "give the folder and the secret of the build")
    look = partial(_looked_at, accept=recipe.field_of_view.accept, hygiene=recipe.hygiene)
    clips: list[dict[str, Any]] = []
    records = wanted[["video_id", "status", "reason", "review_reason", "fov_geometry"]].to_dict("records")
    raws = [Path(raw) / paths[row["video_id"]] for row in records]
    taken = [row["fov_geometry"] if isinstance(row["fov_geometry"], str) else None for row in records]
    # Decoders hang and crash: they do so in another process.
    with progress("drawing clips", len(records), "clips") as advance, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for record, drawn in zip(records, pool.map(look, raws, taken), strict=True):
            why = record["review_reason"] if isinstance(record["review_reason"], str) else _undoubted(record)
            clips.append({"video_id": record["video_id"], "path": paths[record["video_id"]], "why": why, **drawn})
            advance(1)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("page.html.jinja").render(
        name=opened.name, digest=str(opened.about["digest"])[:16], clips=clips, columns=list(COLUMNS)
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, text)
    return ReviewPage(page, len(clips))


def _undoubted(record: Mapping[Any, Any]) -> str:
    return "nothing to doubt" if record["status"] == "ok" else f"left out of the set: {record['reason']}"


def _looked_at(path: Path, taken: str | None, *, accept: float, hygiene: Hygiene) -> dict[str, Any]:
    """Pictures of a raw clip with what was seen in it, and the geometry that an acceptance would mean: the one taken, a proposal, or the
    whole picture."""
    try:
        with open_clip(path) as clip:
            collector = EvidenceCollector(clip.info.frames_declared)
            kept = _frames(clip, collector, hygiene)
            regions, height, width = clip.info.regions, clip.info.height, clip.info.width
    except ReadError as error:
        return {"pictures": [], "geometry": "", "whole": "", "outline": f"cannot be read: {error.reason}"}
    if not kept:
        return {"pictures": [], "geometry": "", "whole": "", "outline": "no frame of it decodes"}
    whole = Rectangle(0, 0, width, height)
    if taken is not None:
        geometry, outline = geometry_from(taken), "as taken"
    else:
        decision = decide(collector.evidence, regions, accept=accept)
        proposal = decision.geometry or decision.proposal
        outline = "the whole picture" if proposal is None else "proposed"
        geometry = proposal or whole
    ink = overlays_inside(collector, geometry).mask if collector.darkest is not None else None
    colour = ORANGE if taken is None else GREEN
    pictures = [_picture(frame, np.asarray(geometry.polygon()), colour, ink) for frame in kept]
    return {
        "pictures": pictures,
        "geometry": geometry_json(geometry),
        "whole": geometry_json(whole),
        "outline": f"{geometry.kind.replace('_', ' ')}, {outline}",
    }


def _frames(clip: Clip, collector: EvidenceCollector, hygiene: Hygiene) -> list[NDArray[np.uint8]]:
    """Evenly spaced frames (BGR), as many as are shown, blank ones only where there is no other; the unique ones are offered to the
    collector."""
    kept: list[NDArray[np.uint8]] = []
    blank: NDArray[np.uint8] | None = None
    stride, count = 1, -1
    for look in look_at(clip, hygiene):
        if look.reason is None:
            collector.offer(look.frame.pixels, clip.picture)
        if look.reason == "blank":
            blank = np.asarray(clip.rgb()[..., ::-1].copy(), np.uint8) if blank is None else blank
            continue
        count += 1
        if count % stride == 0:
            kept.append(np.asarray(clip.rgb()[..., ::-1].copy(), np.uint8))
            if len(kept) == 2 * SHOWN_FRAMES:
                kept, stride = kept[::2], stride * 2
    if not kept and blank is not None:
        return [blank]
    places = sorted({round(place) for place in np.linspace(0, len(kept) - 1, SHOWN_FRAMES)}) if kept else []
    return [kept[place] for place in places]


def _picture(frame: NDArray[np.uint8], corners: NDArray[np.float64], colour: tuple[int, int, int], ink: NDArray[np.bool_] | None) -> str:
    """A frame (H, W, 3) BGR as a JPEG for a page, its outline and ink drawn."""
    scale = SHOWN_WIDTH / frame.shape[1]
    if ink is not None and ink.any():
        around = cv2.dilate(ink.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        frame = frame.copy()
        frame[around & ~ink] = RED
    size = SHOWN_WIDTH, max(1, round(frame.shape[0] * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cv2.polylines(small, [np.rint(((corners + 0.5) * scale - 0.5) * 16).astype(np.int32)], True, colour, 1, cv2.LINE_AA, 4)
    done, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise UserError("a frame", "could not be encoded as JPEG", "report this")
    return base64.b64encode(encoded.tobytes()).decode("ascii")


def read_answers(path: str | Path, known: Collection[str] | None = None) -> dict[str, Answer]:
    """The answers that a page gave: video_id to answer.

    Args:
        path: The CSV.
        known: The clips that there are; None: not looked at.

    Raises:
        UserError: It is no such CSV, an answer in it is none, or it names another clip.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"the answers cannot be read ({error})", "give the CSV that the page downloads") from None
    lines = text.splitlines()
    # Some spreadsheets save semicolons.
    rows = csv.DictReader(lines, delimiter=";" if lines and lines[0].count(";") >= len(COLUMNS) - 1 else ",")
    if rows.fieldnames is None or set(COLUMNS) - set(rows.fieldnames):
        raise UserError(path, f"lacks columns of {', '.join(COLUMNS)}", "give the CSV that the page downloads")
    answers: dict[str, Answer] = {}
    for line, row in enumerate(rows, 2):
        given = {key: row[key].strip() for key in COLUMNS[1:] if row[key] and row[key].strip()}
        if not row["video_id"] or row["video_id"] in answers:
            raise UserError(path, f"line {line} names {'a clip twice' if row['video_id'] else 'no clip'}", "mend the line")
        if known is not None and row["video_id"] not in known:
            raise UserError(path, f"line {line} names '{row['video_id']}', which is no clip of the data set", "give its own page's answers")
        given |= {"answer": given["answer"].lower()} if "answer" in given else {}
        try:
            answer = answers[row["video_id"]] = Answer.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"{part}: " for part in first["loc"])
            raise UserError(path, f"line {line}: {place}{first['msg'].removeprefix('Value error, ')}", "mend the line") from None
        if answer.date > datetime.date.today() + datetime.timedelta(days=1):
            raise UserError(path, f"line {line}: date: {answer.date} has not come yet", "mend the line")
    return answers


def save_answers(dataset: str | Path, path: str | Path) -> int:
    """Write the answers that a data set's recipe holds as a CSV, as the page saves it; gives their number.

    Raises:
        UserError: It holds none.
    """
    answers = answers_of(manifest.open_dataset(dataset).about)
    if not answers:
        raise UserError(dataset, "holds no answers of a review", "there is nothing to save")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for video_id, answer in sorted(answers.items()):
        writer.writerow({"video_id": video_id, **{key: answer.get(key) or "" for key in COLUMNS[1:]}})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(Path(path), text.getvalue())
    return len(answers)


def take_answers(
    dataset: str | Path, answers: str | Path, *, raw: str | Path, workers: int | None = None
) -> tuple[BuildResult, dict[str, int]]:
    """Build a data set again with the answers of a review; earlier answers stay unless these give others.

    Returns:
        The build's result, and how many clips were accepted and rejected by the new answers.

    Raises:
        UserError: The CSV is none, or names a clip that the set has not.
    """
    folder = Path(dataset)
    opened = manifest.open_dataset(folder)
    if published := published_names(opened.about):
        advice = f"make the recipe's own with 'usdata split {folder.name}', take the answers, and apply the published one again"
        raise UserError(folder, f"holds the published {published[0]}, which the build with these answers would undo", advice)
    found = read_answers(answers, set(opened.videos["video_id"]))
    recipe = _recipe_of(opened)
    values = recipe.model_dump(mode="json")
    values["review"] = {**values["review"], **{video_id: answer.model_dump(mode="json") for video_id, answer in found.items()}}
    result = build(Recipe.model_validate(values), raw=raw, out=folder, workers=workers, overwrite=True)
    return result, {word: sum(answer.answer == word for answer in found.values()) for word in ("accept", "reject")}


def _recipe_of(dataset: manifest.DataSet) -> Recipe:
    try:
        return Recipe.model_validate(dataset.about["recipe"])
    except (KeyError, ValidationError):
        raise UserError(dataset.folder, "was built from a recipe that this usdata does not know", "build it again") from None


__all__: Sequence[str] = ["ReviewPage", "read_answers", "save_answers", "take_answers", "write_page"]
