"""Every statistic of an audited phantom against the truth: its tables, its raw files read with PyAV, its stored images read with Pillow."""

from __future__ import annotations

import csv
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion, convolve
from scipy.stats.contingency import association

import usdata
from usdata import manifest

HZ, FOLDS = 5, 2
SURROUNDINGS, METADATA = "surroundings", "shortcut"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sixteen sound clips and five faulty ones."""
    folder = tmp_path_factory.mktemp("truth")
    usdata.phantom(folder / "raw", videos=16, size=128, frames=16)
    usdata.build("phantom", raw=folder / "raw", out=folder / "set", workers=1, overrides=[f"folds.count={FOLDS}"])
    return folder / "raw", folder / "set"


@pytest.fixture(scope="module")
def counted(built: tuple[Path, Path]) -> dict[str, Any]:
    counted: dict[str, Any] = usdata.audit(built[1], write_report=False).statistics
    return counted


@pytest.fixture(scope="module")
def clips(built: tuple[Path, Path]) -> list[dict[str, Any]]:
    """What is true of each clip that can be read: truth.csv, labels.csv, the file's own stream, and its images on disk."""
    raw, folder = built
    labels = {row["path"]: row for row in read_csv(raw / "labels.csv")}
    found = []
    for truth in read_csv(raw / "truth.csv"):
        if truth["fault"] == "truncated":
            continue
        path, label = raw / truth["path"], labels[truth["path"]]
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            times = [frame.pts * stream.time_base for frame in container.decode(video=0)]
            interval = (times[-1] - times[0]) / (len(times) - 1)
            facts = {"codec": stream.codec.canonical_name, "width": stream.width, "height": stream.height}
        assert len(times) == int(truth["frames"])
        images = sorted((folder / "images" / "phantom" / f"{path.stem}_{path.suffix[1:]}").glob("*_frame[0-9]*.png"))
        found.append(
            {
                "id": f"phantom/{path.stem}_{path.suffix[1:]}",
                "patient": f"phantom/{truth['patient']}",
                # The copy under another patient's id shows the scan of its true patient.
                "group": truth["true_patient"],
                "label": truth["label"],
                "fault": truth["fault"],
                "decoded": len(times),
                "fps": float(1 / interval),
                "duration": float(times[-1] - times[0] + interval),
                "bytes": path.stat().st_size,
                "container": {"mpeg": "mpegps"}.get(path.suffix[1:], path.suffix[1:]),
                "images": images,
                "frames": len(images),
                **facts,
                **{name: label[name] for name in ("organ", "probe", "view", "manufacturer", "licence", "mm_per_pixel_y")},
            }
        )
    return found


def total(clips: Iterable[dict[str, Any]]) -> dict[str, int]:
    clips = list(clips)
    distinct = {name: len({clip[key] for clip in clips}) for name, key in (("patients", "patient"), ("groups", "group"), ("clips", "id"))}
    return distinct | {"frames": sum(clip["frames"] for clip in clips)}


def by(clips: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for clip in clips:
        found[clip[key]].append(clip)
    return dict(sorted(found.items()))


def test_totals_and_counts(counted: dict[str, Any], clips: list[dict[str, Any]]) -> None:
    everything = total(clips)
    assert counted["totals"] == everything | {"sources": 1, "labels": len(by(clips, "label"))}
    labels = [{"label": label} | total(members) for label, members in by(clips, "label").items()]
    assert counted["by_label"] == labels
    assert counted["by_source_label"] == [{"source": "phantom"} | row for row in labels]
    assert counted["by_source_label_split"] == [
        {"source": "phantom", "label": row["label"], "split": "train"} | {key: row[key] for key in everything} for row in labels
    ]
    assert counted["by_split_label"] == [{"split": "train"} | row for row in labels]
    assert counted["by_source"] == [{"source": "phantom"} | everything]
    assert counted["by_split"] == [{"split": "train"} | everything]
    [source] = counted["sources"]
    assert source == {"source": "phantom", "labels": len(labels), "labels_given": len(labels)} | everything | {
        "organs": sorted(by(clips, "organ")),
        "fps": pytest.approx(statistics.median(clip["fps"] for clip in clips)),
        "width": statistics.median(clip["width"] for clip in clips),
        "height": statistics.median(clip["height"] for clip in clips),
        "frames_a_clip": everything["frames"] / everything["clips"],
    }


def test_folds_hold_whole_patients(counted: dict[str, Any], clips: list[dict[str, Any]], built: tuple[Path, Path]) -> None:
    frames = manifest.read_table(built[1], manifest.FRAMES).to_pylist()
    fold_of = {row["video_id"]: row["fold"] for row in frames}
    folds = [clip | {"fold": fold_of[clip["id"]]} for clip in clips]
    assert all(len({clip["fold"] for clip in members}) == 1 for members in by(folds, "group").values())
    assert counted["by_fold"] == [{"fold": fold} | total(members) for fold, members in by(folds, "fold").items()]
    assert counted["by_fold_label"] == [
        {"fold": fold, "label": label} | total(members)
        for fold, in_fold in by(folds, "fold").items()
        for label, members in by(in_fold, "label").items()
    ]


def test_patients_groups_and_labels(counted: dict[str, Any], clips: list[dict[str, Any]]) -> None:
    def members(key: str) -> list[tuple[int, int, list[str]]]:
        return sorted((len(found), sum(clip["frames"] for clip in found), sorted(by(found, "label"))) for found in by(clips, key).values())

    for name, key in (("patient", "patient"), ("group", "group")):
        rows = counted[f"by_{name}"]
        assert sorted((row["clips"], row["frames"], row["labels"]) for row in rows) == members(key)
        sizes = [len(found) for found in by(clips, key).values()]
        spread = {"count": len(sizes), "min": min(sizes), "median": statistics.median(sizes), "max": max(sizes)}
        assert counted[f"clips_per_{name}"] == spread
    assert [row["patient"] for row in counted["by_patient"]] == list(by(clips, "patient"))
    frames = sum(clip["frames"] for clip in clips)
    assert counted["labels"] == {
        "clips_labelled": len(clips), "clips_unlabelled": 0, "share_unlabelled": 0, "frames_labelled": frames, "frames_unlabelled": 0
    }  # fmt: skip
    levels = counted["label_levels"]
    assert (levels["level"], levels["clips_labelled"], levels["varies_within_patient"]) == ("patient", len(clips), False)
    assert (levels["groups_of_one_label"], levels["groups_of_several"]) == (len(by(clips, "group")), 0)
    for kind, weights in (("by_clip", [1] * len(clips)), ("by_frame", [clip["frames"] for clip in clips])):
        counts: Counter[str] = Counter()
        for clip, weight in zip(clips, weights, strict=True):
            counts[clip["label"]] += weight
        most = counts.most_common(1)[0][1]
        assert counted["majority"][kind]["rate"] == most / sum(weights)
        assert counts[counted["majority"][kind]["label"]] == most


def test_flow(counted: dict[str, Any], clips: list[dict[str, Any]], built: tuple[Path, Path]) -> None:
    files = [path for path in built[0].rglob("*") if path.is_file()]
    others = 3  # labels.csv, truth.csv, README.txt
    decoded, kept = sum(clip["decoded"] for clip in clips), sum(clip["frames"] for clip in clips)
    flow = counted["flow"]
    assert {key: flow["clips"][key] for key in ("found", "failed", "excluded", "kept")} == {
        "found": len(files), "failed": 1, "excluded": others, "kept": len(files) - others - 1
    }  # fmt: skip
    assert [row["path"] for row in flow["clips"]["failures"]] == ["clips/late_0.mp4"]
    frames = flow["frames"]
    assert (frames["decoded"], frames["kept"], frames["blank"], frames["unaccounted"]) == (decoded, kept, 6, 0)
    still = next(clip["decoded"] for clip in clips if clip["fault"] == "frozen")
    assert frames["near_repeat"] + frames["repeats_period"] >= still - 1, "a frozen clip repeats its first frame"
    stages = {stage["stage"]: (stage["clips"], stage["frames"]) for stage in flow["stages"]}
    unique = decoded - sum(frames[name] for name in ("near_repeat", "repeats_period", "redundant", "blank", "damaged", "invalid"))
    assert stages == {"found": (len(files), None)} | dict.fromkeys(("decoded", "mode", "field_of_view"), (len(clips), decoded)) | {
        "unique": (len(clips), unique),
        "split": (len(clips), kept),
    }
    assert unique - kept == frames["not_sampled"]


def rows_of(values: list[str], labels: list[str]) -> dict[str, Counter[str]]:
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for value, label in zip(values, labels, strict=True):
        table[value][label] += 1
    return dict(table)


def bin_of(value: float, width: float, unit: str, decimals: int) -> str:
    low = int(value / width) * width
    return f"{low:.{decimals}f} to {low + width:.{decimals}f} {unit}"


def test_acquisition(counted: dict[str, Any], clips: list[dict[str, Any]], built: tuple[Path, Path]) -> None:
    effective = {}
    for clip in clips:
        gone = [row for row in manifest.read_table(built[1], manifest.EXCLUDED).to_pylist() if row["video_id"] == clip["id"]]
        repeats = sum(row["reason"] in ("near_repeat", "blank") for row in gone)
        effective[clip["id"]] = (clip["decoded"] - repeats) / clip["duration"]
    labels = [clip["label"] for clip in clips]
    truth = {
        "source": ["phantom"] * len(clips),
        **{name: [clip[name] for clip in clips] for name in ("container", "codec", "probe", "manufacturer", "organ", "view")},
        "fps": [f"{clip['fps']:.0f}" for clip in clips],
        "effective rate": [bin_of(effective[clip["id"]], 5, "Hz", 0) for clip in clips],
        "size": [f"{clip['width']}×{clip['height']}" for clip in clips],
        "device": ["unknown"] * len(clips),
        "depth": ["unknown"] * len(clips),
        "spacing": [bin_of(float(clip["mm_per_pixel_y"]), 0.05, "mm", 2) for clip in clips],
        "colour": None,  # of the kept frames' pixels: below
    }
    assert set(counted["acquisition"]) == set(truth)
    for name, values in truth.items():
        entry = counted["acquisition"][name]
        if values is None:
            assert sum(row["clips"] for row in entry["values"]) == len(clips)
            continue
        table = rows_of(values, labels)
        assert {row["value"]: {k: n for k, n in row["labels"].items() if n} for row in entry["values"]} == {
            value: dict(row) for value, row in table.items()
        }, name
        counts = np.array([[row[label] for label in sorted(set(labels))] for row in table.values()])
        assert entry["cramers_v"] == (None if len(table) == 1 else pytest.approx(bergsma(counts))), name


def bergsma(table: np.ndarray) -> float:
    """Cramér's V corrected for its bias, from scipy's uncorrected one."""
    rows, columns = table.shape
    n = table.sum()
    phi_squared = association(table, method="cramer") ** 2 * (min(rows, columns) - 1)
    corrected = max(0.0, phi_squared - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(min(1.0, np.sqrt(corrected / smaller)))


def test_distributions(counted: dict[str, Any], clips: list[dict[str, Any]], built: tuple[Path, Path]) -> None:
    geometries = {row["video_id"]: row for row in manifest.read_table(built[1], manifest.VIDEOS).to_pylist()}
    measures = [quality(np.asarray(Image.open(path)), geometries[clip["id"]]) for clip in clips for path in clip["images"]]
    truth = {
        "duration_s": [clip["duration"] for clip in clips],
        "fps": [clip["fps"] for clip in clips],
        "frames_kept": [clip["frames"] for clip in clips],
        "quality_mean": [measure[0] for measure in measures],
        "quality_std": [measure[1] for measure in measures],
        "quality_sharpness": [measure[2] for measure in measures],
    }
    assert set(counted["distributions"]) == set(truth)
    for name, values in truth.items():
        entry, of = counted["distributions"][name], np.array(values, dtype=float)
        assert (entry["count"], entry["missing"], sum(entry["counts"])) == (len(of), 0, len(of)), name
        edges = np.array(entry["edges"])  # the last digit of a measure may differ, and must not fall out of the bins
        assert entry["counts"] == np.histogram(np.clip(of, edges[0], edges[-1]), edges)[0].tolist(), name
        expected = [of.min(), *np.percentile(of, [5, 50, 95]), of.max(), of.mean()]
        assert [entry[key] for key in ("min", "p5", "median", "p95", "max", "mean")] == pytest.approx(expected, rel=1e-3), name


def quality(pixels: np.ndarray, video: dict[str, Any]) -> tuple[float, float, float]:
    """Mean, standard deviation and variance of the Laplacian inside the field of view, as the contract says, with numpy and scipy."""
    inside = np.ones(pixels.shape, bool)
    if video["fov_stored_geometry"] is not None:
        from usdata.imaging.geometry import geometry_from

        inside = geometry_from(video["fov_stored_geometry"]).mask(*pixels.shape)
    laplacian = convolve(pixels.astype(float), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]), mode="mirror")
    core = inside if inside.all() else binary_erosion(inside, np.ones((3, 3)), border_value=1)
    values = pixels[inside].astype(float)
    measures = values.mean(), values.std(), laplacian[core].var()
    return round(float(measures[0]), 4), round(float(measures[1]), 4), round(float(measures[2]), 4)


def test_licences_privacy_and_identity(counted: dict[str, Any], clips: list[dict[str, Any]], built: tuple[Path, Path]) -> None:
    frames = sum(clip["frames"] for clip in clips)
    row = {"licence": "CC0-1.0", "kind": "public domain", "clips": len(clips), "frames": frames}
    assert counted["licences"] == [row]
    assert counted["licences_by_source"] == [{"source": "phantom"} | row]
    [named] = counted["attribution"]
    assert (named["source"], named["licence"], named["clips"], named["frames"]) == ("phantom", "CC0-1.0", len(clips), frames)
    assert (named["citation"], named["entry"]) == (None, None), "the catalogue has no simulated source"
    privacy = {row["what"]: row["value"] for row in counted["privacy"]["rows"]}
    assert (privacy["release"], privacy["stored of a picture"], privacy["clips held back for review"]) == ("no", "none", 0)
    about = manifest.open_dataset(built[1]).about
    assert (counted["set"]["name"], counted["set"]["digest"]) == ("phantom", manifest.tables_digest(built[1]))
    assert counted["set"]["organs"] == sorted(by(clips, "organ"))
    assert counted["set"]["classes"] == sorted(by(clips, "label"))
    facts = counted["reproducibility"]
    assert facts["digests"]["raw_digest"] == about["raw_digest"]
    assert (facts["published"], facts["reviews"]) == ({}, {})


def test_the_planted_copy_is_the_only_duplicate_across_patients(counted: dict[str, Any], built: tuple[Path, Path]) -> None:
    rows = {f"phantom/{Path(row['path']).stem}_{Path(row['path']).suffix[1:]}": row for row in read_csv(built[0] / "truth.csv")}
    [copy] = [row for row in rows.values() if row["fault"] == "duplicate"]
    original = copy["fault_detail"].split()[2].rstrip(":")
    pairs = [(rows[row["video_id_a"]], rows[row["video_id_b"]]) for row in counted["duplicates"] if row["kind"] == "content"]
    assert all(a["true_patient"] == b["true_patient"] for a, b in pairs)
    assert {(a["path"], b["path"]) for a, b in pairs if a["patient"] != b["patient"]} == {(original, copy["path"])}


def test_the_probes_say_that_patients_are_too_few(counted: dict[str, Any], clips: list[dict[str, Any]]) -> None:
    groups = {label: len(by(members, "group")) for label, members in by(clips, "label").items()}
    few = [label for label, number in groups.items() if number < 3]
    for name in (METADATA, SURROUNDINGS):
        assert counted[name]["left_out"] == few
        assert ("why_not" in counted[name]) == (len(groups) - len(few) < 2)
