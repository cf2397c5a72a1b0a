"""How surely planted copies of real clips are found, and what is taken for a copy and is none; perceptual hashes beside it.

    python benchmarks/duplicates.py CLIPS [--clips 110] [--copies-per-clip 10] [--seed 0] [--json OUT] [--markdown OUT]

CLIPS is any folder of real ultrasound. So many of its clips are copied, each several times, by one transform or two (planted_copies.py
says which and how strong). All of CLIPS is built as one data set, all copies as another, by one recipe at three frames a second;
`usdata overlap` of the two is asked which copy is of which clip. A match with another clip is wrong, unless that clip and the copied one
are the same scan themselves: same_scans.csv lists what a person holds for the same. Where a copy was found, scale, place, mirroring and
interval are compared with how it was made. Perceptual hashes see the stored frames of the same two sets.

With --work DIR copies and data sets stay there, and copies that are there are not made again. With --imagededup PYTHON, an interpreter
that has imagededup, its hashes at its default thresholds are counted too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase as fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from measured import hand_on
from numpy.typing import NDArray
from planted_copies import TRANSFORMS, Copy, chosen, designed, plant

from usdata import manifest
from usdata.building import build
from usdata.overlapping import Pair, overlap
from usdata.recipe import Recipe

OURS = "usdata overlap"
FINGERPRINT = "fingerprint, 256 bits, 32"
# imagededup's defaults: a distance of 10 of 64 bits, a cosine of .9
HASH_DISTANCE, FINGERPRINT_DISTANCE, CNN_COSINE = 10, 32, 0.9


def main() -> None:
    """Plant, build, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="a folder of real clips")
    parser.add_argument("--clips", dest="number", type=int, default=110, help="clips that are copied")
    parser.add_argument("--below", nargs="*", default=[], help="folders below CLIPS whose clips are copied; all, if not given")
    parser.add_argument("--copies-per-clip", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, help="keep copies and data sets here")
    parser.add_argument("--imagededup", type=Path, help="an interpreter that has imagededup")
    parser.add_argument("--json", type=Path, help="write everything, copy by copy")
    parser.add_argument("--tables-of", type=Path, help="the --json of an earlier run: nothing is run, its tables are written")
    parser.add_argument("--markdown", type=Path, help="replace the tables of this page, or write a page of them")
    given = parser.parse_args()
    if given.tables_of:
        result = json.loads(given.tables_of.read_text())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            work = given.work or Path(temporary)
            copies = planted(given, work)
            originals_set = made_set(given.clips, work / "originals", given.workers)
            copies_set = made_set(work / "copies", work / "copied", given.workers)
            result = compared(originals_set, copies_set, copies, work, given)
    tables = written(result)
    print("\n".join(tables))
    if given.markdown:
        insert(given.markdown, tables)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))


def planted(given: argparse.Namespace, work: Path) -> list[Copy]:
    """The copies: those of an earlier run, or new ones."""
    record = work / "copies.json"
    if record.exists():
        rows = json.loads(record.read_text())
        return [Copy(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}) for row in rows]
    clips = chosen(given.clips, given.below, given.number, given.seed)
    plan = designed(len(clips), given.copies_per_clip, given.seed)
    start = time.monotonic()
    copies = plant(given.clips, clips, plan, work / "copies", given.seed, given.workers)
    print(f"{len(copies)} copies of {len(clips)} clips written in {time.monotonic() - start:.0f} s")
    record.write_text(json.dumps([asdict(copy) for copy in copies]))
    return copies


def made_set(raw: Path, out: Path, workers: int) -> Path:
    """A data set of a folder; pairs inside it are not looked for."""
    source = {"name": "files", "layout": "files", "patient_ids": "public", "sampling": {"rule": "rate", "hz": 3.0}}
    recipe = {"name": out.name, "sources": [source], "modes": None, "duplicates": {"content": False}}
    result = build(Recipe.model_validate(recipe), raw=raw, out=out, workers=workers, overwrite=True)
    print(f"{out.name}: {result.counts} in {result.seconds:.0f} s")
    return result.out


# --- judging ------------------------------------------------------------------------------------------------------------------------------


def compared(originals: Path, copied: Path, copies: Sequence[Copy], work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is known in the end, as JSON: by copy, by method."""
    path_of = [{row["video_id"]: row for row in manifest.read_table(folder, manifest.VIDEOS).to_pylist()} for folder in (originals, copied)]
    start = time.monotonic()
    itself = overlap(originals, workers=given.workers)
    within_s = time.monotonic() - start
    start = time.monotonic()
    across = overlap(originals, copied, workers=given.workers)
    across_s = time.monotonic() - start
    print(f"overlap: {across.clips_a} clips with {across.clips_b} in {across_s:.0f} s; the originals among themselves in {within_s:.0f} s")
    truth = {copy.name: copy.clip for copy in copies}
    by_pair = {(path_of[0][pair.a]["path"], path_of[1][pair.b]["path"]): pair for pair in across.pairs}
    found = {OURS: {copy for clip, copy in by_pair if truth[copy] == clip}}
    others = {OURS: [[clip, copy, pair.score, pair.motion] for (clip, copy), pair in by_pair.items() if truth[copy] != clip]}
    print(f"{len(found[OURS])} of {len(copies)} copies found, {len(others[OURS])} matches with other clips")
    told = [{key: value for key, value in asdict(copy).items() if key != "frames"} for copy in copies if copy.name not in found[OURS]]
    (work / "missed.json").write_text(json.dumps({"missed": told, "others": others[OURS]}, indent=1))
    for name, pairs in hashed(originals, copied, path_of, work, given.imagededup):
        found[name] = {copy for clip, copy in pairs if truth[copy] == clip}
        others[name] = [[clip, copy, None, None] for clip, copy in sorted(pairs) if truth[copy] != clip]
    status = {row["path"]: (video_id, row["status"]) for video_id, row in path_of[1].items()}
    dark = set(across.left_out)
    original_id = {row["path"]: video_id for video_id, row in path_of[0].items()}
    rows = []
    for copy in copies:
        pair = by_pair.get((copy.clip, copy.name))
        video_id, state = status[copy.name]
        facts = {key: value for key, value in asdict(copy).items() if key != "frames"}
        rows.append(
            facts
            | {
                "frames_of_copy": len(copy.frames),
                "status": state,
                "found": {name: copy.name in each for name, each in found.items()},
            }
            | {"not_compared": video_id in dark, "clip_not_compared": original_id[copy.clip] in dark}
            | ({} if pair is None else {"kind": pair.kind, "score": pair.score, "motion": pair.motion, "errors": errors(copy, pair)})
        )
    return {
        "clips_a": across.clips_a,
        "clips_b": across.clips_b,
        "clips_copied": len({copy.clip for copy in copies}),
        "workers": given.workers,
        "seconds": {"across": across_s, "within": within_s},
        "copies": rows,
        "others": others,
        "pairs_of_originals": [
            [path_of[0][pair.a]["path"], path_of[0][pair.b]["path"], pair.kind, pair.score, pair.motion] for pair in itself.pairs
        ],
        "originals_not_compared": sorted(path_of[0][clip]["path"] for clip in dark if clip in path_of[0] and clip in itself.left_out),
    }


def known_same() -> Callable[[str, str], str]:
    """Why two clips are held for the same scan, by their names; empty where they are not."""
    with Path(__file__).with_name("same_scans.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def same(one: str, other: str) -> str:
        names = Path(one).name, Path(other).name
        return next((row["why"] for row in rows for x, y in (names, names[::-1]) if fnmatch(x, row["a"]) and fnmatch(y, row["b"])), "")

    return same


def errors(copy: Copy, pair: Pair) -> dict[str, Any]:
    """How far the alignment is from how the copy was made: scale in percent, place in percent of the copy's width, time in frames."""
    left, top, right, bottom = copy.box
    corners_x = np.array([left, right, left, right], float)
    corners_y = np.array([top, top, bottom, bottom], float)
    sign = -1 if pair.flip else 1
    there_x = sign * pair.scale[0] * (corners_x - copy.shift_x) / copy.scale_x + pair.shift[0]
    there_y = pair.scale[1] * (corners_y - copy.shift_y) / copy.scale_y + pair.shift[1]
    indices = np.array(copy.frames)
    first, last = pair.frames_a
    low, high = int(indices.min()), int(indices.max())
    shared = max(0, min(last, high) - max(first, low) + 1)
    late = [abs(a - int(indices[b])) for a, b in pair.frames if b < len(indices)]
    return {
        "flip_right": pair.flip == (copy.scale_x < 0),
        "scale_x": 100 * abs(pair.scale[0] / abs(copy.scale_x) - 1),
        "scale_y": 100 * abs(pair.scale[1] / copy.scale_y - 1),
        "place_x": 100 * float(np.abs(there_x - corners_x).mean()) / copy.width,
        "place_y": 100 * float(np.abs(there_y - corners_y).mean()) / copy.width,
        "frames_a": [first, last],
        "frames_true": [low, high],
        "iou": shared / (max(last, high) - min(first, low) + 1),
        "frames_off": float(np.median(late)) if late else None,
    }


# --- hashes -------------------------------------------------------------------------------------------------------------------------------


def hashed(
    originals: Path, copied: Path, path_of: Sequence[dict[str, dict[str, Any]]], work: Path, python: Path | None
) -> Iterable[tuple[str, set[tuple[str, str]]]]:
    """For each hash the pairs of a clip and a copy of which two stored frames are within its threshold."""
    frames = [
        manifest.read_table(folder, manifest.FRAMES).select(["video_id", "path", "fingerprint"]).to_pylist()
        for folder in (originals, copied)
    ]
    clips = [[path_of[side][row["video_id"]]["path"] for row in frames[side]] for side in (0, 1)]
    bits = [np.stack([np.unpackbits(np.frombuffer(bytes.fromhex(row["fingerprint"]), np.uint8)) for row in rows]) for rows in frames]
    yield FINGERPRINT, near(bits[0], bits[1], clips, FINGERPRINT_DISTANCE)
    if python is None:
        return
    listed, out = work / "frames.txt", work / "imagededup.npz"
    listed.write_text(
        "\n".join(str((folder / row["path"]).resolve()) for folder, rows in zip((originals, copied), frames, strict=True) for row in rows)
    )
    start = time.monotonic()
    subprocess.run([python, Path(__file__).with_name("imagededup_encodings.py"), listed, out], check=True)
    print(f"imagededup: {sum(map(len, frames))} stored frames encoded in {time.monotonic() - start:.0f} s")
    encodings = np.load(out)
    for name in encodings.files:
        a, b = encodings[name][: len(frames[0])], encodings[name][len(frames[0]) :]
        if name == "CNN":
            a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
            yield f"imagededup {name}, {CNN_COSINE}", close(lambda part, b=b: part @ b.T >= CNN_COSINE, a, clips)
        else:
            yield f"imagededup {name}, 64 bits, {HASH_DISTANCE}", near(a, b, clips, HASH_DISTANCE)


def near(a: NDArray[np.uint8], b: NDArray[np.uint8], clips: Sequence[Sequence[str]], most: int) -> set[tuple[str, str]]:
    """Pairs of clips with a pair of frames whose bits differ in at most so many places."""
    signs_b = 2 * b.astype(np.float32) - 1
    # the scalar product of signs is bits that agree less bits that differ
    return close(lambda part: (2 * part.astype(np.float32) - 1) @ signs_b.T >= part.shape[1] - 2 * most, a, clips)


def close(test: Callable[[NDArray[Any]], NDArray[np.bool_]], a: NDArray[Any], clips: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    """Pairs of clips with a pair of frames that passes, 500 frames of the first set at a time."""
    found = set()
    for start in range(0, len(a), 500):
        for x, y in np.argwhere(test(a[start : start + 500])).tolist():
            found.add((clips[0][start + x], clips[1][y]))
    return found


# --- telling ------------------------------------------------------------------------------------------------------------------------------


def wilson(found: int, number: int) -> str:
    """95 % interval of a share."""
    if not number:
        return ""
    z, share = 1.96, found / number
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * np.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return f"{max(0.0, middle - half):.3f} to {min(1.0, middle + half):.3f}"


def written(result: dict[str, Any]) -> list[str]:
    """All tables, as Markdown."""
    rows = result["copies"]
    clip_of = {row["name"]: row["clip"] for row in rows}
    same = lru_cache(maxsize=None)(known_same())
    wrong = {name: [each for each in pairs if not same(each[0], clip_of[each[1]])] for name, pairs in result["others"].items()}
    lines = [
        f"{len(rows)} copies of {result['clips_copied']} clips, compared with {result['clips_a']} originals (clips and stills) in "
        f"{result['seconds']['across']:.0f} s by {result['workers']} processes; the originals among themselves in "
        f"{result['seconds']['within']:.0f} s.",
        "",
        "| method | copies found | recall | 95 % | wrong pairs | precision |",
        "|---|--:|--:|---|--:|--:|",
    ]
    for name, pairs in wrong.items():
        found = sum(row["found"][name] for row in rows)
        hand_on(f"{name}: recall of planted copies", found / len(rows), limit=0.98 if name == OURS else None, sense="at least", load=False)
        hand_on(f"{name}: wrong pairs", len(pairs), limit=0 if name == OURS else None, load=False)
        right = f"{found / max(1, found + len(pairs)):.4f}"
        lines.append(f"| {name} | {found} | {found / len(rows):.3f} | {wilson(found, len(rows))} | {len(pairs):,} | {right} |")
    lines += ["", *_by_transform(rows, list(wrong)), "", *_by_pair(rows), "", *_alignment(rows)]
    missed = [row for row in rows if not row["found"][OURS]]
    lines += ["", f"Missed, all {len(missed)}:", "", "| clip | transforms | parameters |", "|---|---|---|"]
    for row in missed:
        why = (
            "; nothing to compare in the " + ("clip" if row["clip_not_compared"] else "copy")
            if row["clip_not_compared"] or row["not_compared"]
            else ""
        )
        state = "" if row["status"] == "ok" else f"; {row['status']}"
        lines.append(f"| {Path(row['clip']).name} | {' + '.join(row['transforms'])} | {_told(row['parameters'])}{why}{state} |")
    lines += ["", f"Matched with another clip, all {len(wrong[OURS])}:", ""]
    lines += ["| clip | copy of | transforms | score | motion |", "|---|---|---|--:|--:|"]
    by_name = {row["name"]: row for row in rows}
    for clip, copy, *figures in wrong[OURS]:
        row = by_name[copy]
        lines.append(f"| {Path(clip).name} | {Path(row['clip']).name} | {' + '.join(row['transforms'])} | {_figures(figures)} |")
    twice = len(result["others"][OURS]) - len(wrong[OURS])
    lines += ["", f"Matches with the same scan under another name, which count neither way: {twice}.", ""]
    lines += [
        "Pairs found among the originals:",
        "",
        "| clip | clip | kind | score | motion | same scan |",
        "|---|---|---|--:|--:|---|",
    ]
    for a, b, kind, *figures in result["pairs_of_originals"]:
        lines.append(f"| {Path(a).name} | {Path(b).name} | {kind} | {_figures(figures)} | {same(a, b) or '**no**'} |")
    return lines


def _by_transform(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[str]:
    short = [name.removeprefix("imagededup ").split(",")[0] for name in methods[1:]]
    lines = [
        f"| transform | alone | found | recall | 95 % | {' | '.join(short)} | in pairs | found | recall |",
        f"|---|--:|--:|--:|---|{'--:|' * len(short)}--:|--:|--:|",
    ]
    for name in [*TRANSFORMS, None]:
        mine = [row for row in rows if name is None or name in row["transforms"]]
        alone = [row for row in mine if len(row["transforms"]) == 1]
        paired = [row for row in mine if len(row["transforms"]) == 2]
        cells = [name or "all"]
        found = sum(row["found"][OURS] for row in alone)
        cells += [str(len(alone)), str(found), f"{found / max(1, len(alone)):.3f}", wilson(found, len(alone))]
        cells += [f"{sum(row['found'][method] for row in alone) / max(1, len(alone)):.2f}" for method in methods[1:]]
        found = sum(row["found"][OURS] for row in paired)
        cells += [str(len(paired)), str(found), f"{found / max(1, len(paired)):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _by_pair(rows: Sequence[dict[str, Any]]) -> list[str]:
    found: dict[frozenset[str], list[bool]] = defaultdict(list)
    for row in rows:
        found[frozenset(row["transforms"])].append(row["found"][OURS])
    names = list(TRANSFORMS)
    lines = ["Found of planted, by pair (alone on the diagonal):", "", f"| | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for place, first in enumerate(names):
        cells = [found[frozenset((first, second))] if column >= place else [] for column, second in enumerate(names)]
        lines.append(f"| {first} | {' | '.join(f'{sum(cell)}/{len(cell)}' if cell else '' for cell in cells)} |")
    return lines


def _alignment(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "Alignment of the copies that are found, alone and in pairs: medians (90th percentile). Scale in %, place (mean of the tissue "
        "box' corners) in % of the copy's width, time in frames of the clip, interval by intersection over union (10th percentile):",
        "",
        "| transform | found | mirroring right | scale x | scale y | place x | place y | frames off | interval |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in [*TRANSFORMS, None]:
        mine = [row["errors"] for row in rows if (name is None or name in row["transforms"]) and "errors" in row]
        if not mine:
            continue
        cells = [f"{np.mean([each['flip_right'] for each in mine]):.3f}"]
        for key, tail in (("scale_x", 90), ("scale_y", 90), ("place_x", 90), ("place_y", 90), ("frames_off", 90), ("iou", 10)):
            values = [each[key] for each in mine if each[key] is not None]
            cells.append(f"{np.median(values):.2f} ({np.percentile(values, tail):.2f})" if values else "")
        lines.append(f"| {name or 'all'} | {len(mine)} | {' | '.join(cells)} |")
    return lines


def _figures(figures: Sequence[float | None]) -> str:
    return " | ".join("" if figure is None else f"{figure:.3f}" for figure in figures)


def _told(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in parameters.items() if key != "box_before")


def insert(page: Path, tables: Sequence[str]) -> None:
    """Put the tables between two marks of a page, or write a page of them."""
    begin, end = "<!-- tables of benchmarks/duplicates.py -->", "<!-- end of tables -->"
    text = page.read_text() if page.exists() else f"{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n" + "\n".join(tables) + f"\n\n{end}{after}")


if __name__ == "__main__":
    main()
