"""Counts against planted tables; Cramér's V against scipy and closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats.contingency import association

from tests.usdata.auditing.planted import Planted, duplicate
from usdata.auditing import audit
from usdata.auditing.acquisition import cramers_v
from usdata.auditing.contact_sheets import evenly_over_groups, worst
from usdata.auditing.licences import licence_kind, licence_strictness
from usdata.auditing.probes import shortcut_probe


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """16 clips of 8 patients, 3 frames each; one failed, one excluded, one unlabelled, one without a patient, one of another source."""
    planted = Planted(clips=16)
    planted.set_video(0, status="failed", reason="cut off", frames_decoded=5, frames_kept=0)
    planted.drop_frames("clinic/v00")
    planted.set_video(2, status="excluded", reason="a slide", frames_kept=0)
    planted.frames = [row for row in planted.frames if row["video_id"] != "clinic/v02"]
    for row in planted.excluded:
        if row["video_id"] == "clinic/v02":
            row["reason"] = "damaged"
    planted.excluded += [
        {**planted.excluded[-1], "video_id": "clinic/v02", "frame_index": index, "reason": "damaged"} for index in range(3)
    ]
    planted.set_video(4, label=None)
    planted.set_video(6, patient_id=None)
    planted.set_video(8, duration_s=None, fps=50.0)
    planted.set_video(9, duration_s=2.0, licence="CC0 1.0")
    planted.duplicates = [duplicate("clinic/v10", "clinic/v11")]
    folder = planted.write(tmp_path_factory.mktemp("set"), images=False)
    return audit(folder, write_report=False).to_json()["statistics"]


def test_statistics_are_json(counted: dict) -> None:
    assert json.loads(json.dumps(counted, allow_nan=False)) == counted


def test_flow_adds_up(counted: dict) -> None:
    clips, frames = counted["flow"]["clips"], counted["flow"]["frames"]
    assert (clips["found"], clips["failed"], clips["excluded"], clips["kept"]) == (16, 1, 1, 14)
    assert clips["failures"] == [{"video_id": "clinic/v00", "path": "clinic/v00.mp4", "reason": "cut off"}]
    assert clips["exclusions"] == [{"video_id": "clinic/v02", "path": "clinic/v02.mp4", "reason": "a slide"}]
    assert frames == {
        "decoded": 15 * 12,
        "near_repeat": 14 * 2,
        "repeats_period": 0,
        "redundant": 0,
        "blank": 0,
        "not_sampled": 14 * 7,
        "damaged": 12,
        "invalid": 0,
        "clip_excluded": 0,
        "kept": 14 * 3,
        "unaccounted": 0,
        "in_failed_clips": 5,
    }


def test_frames_of_a_clip_that_is_left_out_as_a_whole_are_counted_once(tmp_path: Path) -> None:
    """Some of them would not have been sampled anyway; that is no second reason."""
    planted = Planted(clips=4)
    planted.set_video(2, status="excluded", reason="is colour doppler", frames_kept=0)
    gone = [row for row in planted.frames if row["video_id"] == "clinic/v02"]
    planted.frames = [row for row in planted.frames if row["video_id"] != "clinic/v02"]
    planted.excluded += [
        {**planted.excluded[-1], "video_id": "clinic/v02", "frame_index": row["frame_index"], "reason": "clip_excluded"} for row in gone
    ]
    flow = audit(planted.write(tmp_path / "set", images=False), write_report=False).to_json()["statistics"]["flow"]
    frames = flow["frames"]
    assert (frames["clip_excluded"], frames["near_repeat"], frames["not_sampled"]) == (12, 3 * 2, 3 * 7)
    assert (frames["decoded"], frames["kept"], frames["unaccounted"]) == (4 * 12, 3 * 3, 0)
    (left_out,) = [row for stage in flow["stages"] for row in stage["left_out"] if row["reason"] == "is colour doppler"]
    assert left_out["frames"] == 12


def test_counts_by_everything(counted: dict) -> None:
    # Clip 0 (p0, benign) and clip 2 (p1, malignant) are gone, clip 4 (p2, benign) lost its label, clip 6 (p3, malignant) its patient.
    benign = {"patients": 4, "groups": 4, "clips": 6, "frames": 18}
    malignant = {"patients": 4, "groups": 4, "clips": 7, "frames": 21}
    unlabelled = {"patients": 1, "groups": 1, "clips": 1, "frames": 3}
    rows = [{"label": "benign"} | benign, {"label": "malignant"} | malignant, {"label": "unlabelled"} | unlabelled]
    assert counted["by_label"] == rows
    assert counted["by_source_label"] == [{"source": "clinic"} | row for row in rows]
    everything = {"patients": 8, "groups": 8, "clips": 14, "frames": 42}
    assert counted["totals"] == everything | {"sources": 1, "labels": 2}
    assert counted["by_split"] == [{"split": "train"} | everything]
    # Patients 0, 1, 4, 5 are in fold 0; clip 6 lost its patient when its fold was set already.
    assert counted["by_fold"] == [
        {"fold": 0, "patients": 4, "groups": 4, "clips": 6, "frames": 18},
        {"fold": 1, "patients": 4, "groups": 4, "clips": 8, "frames": 24},
    ]
    assert counted["clips_per_patient"] == {"count": 8, "min": 1, "median": 2.0, "max": 2}
    assert counted["clips_per_group"] == {"count": 8, "min": 1, "median": 2.0, "max": 2}
    assert counted["by_patient"][0] == {"patient": "clinic/p0", "clips": 1, "frames": 3, "labels": ["benign"]}
    assert counted["labels"]["share_unlabelled"] == 1 / 14
    assert counted["majority"]["by_clip"] == {"label": "malignant", "rate": 7 / 13, "of": 13}
    assert counted["majority"]["by_frame"] == {"label": "malignant", "rate": 21 / 39, "of": 39}


def test_distributions_licences_and_duplicates(counted: dict) -> None:
    duration = counted["distributions"]["duration_s"]
    assert (duration["count"], duration["missing"], duration["min"], duration["max"]) == (13, 1, 0.48, 2.0)
    assert sum(duration["counts"]) == 13
    assert duration["median"] == 0.48
    fps = counted["distributions"]["fps"]
    assert (fps["min"], fps["max"], sum(fps["counts"])) == (25, 50, 14)
    kept = counted["distributions"]["frames_kept"]
    assert kept["counts"] == [14]
    assert counted["licences"] == [
        {"licence": "CC BY 4.0", "kind": "by", "clips": 13, "frames": 39},
        {"licence": "CC0 1.0", "kind": "public domain", "clips": 1, "frames": 3},
    ]
    assert [(row["video_id_a"], row["video_id_b"]) for row in counted["duplicates"]] == [("clinic/v10", "clinic/v11")]


def test_acquisition_counts_labelled_clips(counted: dict) -> None:
    assert counted["acquisition"]["fps"]["values"] == [
        {"value": "25", "clips": 12, "labels": {"benign": 5, "malignant": 7}},
        {"value": "50", "clips": 1, "labels": {"benign": 1, "malignant": 0}},
    ]
    assert counted["acquisition"]["size"]["values"] == [{"value": "64×48", "clips": 13, "labels": {"benign": 6, "malignant": 7}}]
    assert counted["acquisition"]["size"]["cramers_v"] is None


@pytest.mark.parametrize("seed", range(8))
def test_cramers_v_is_bergsmas_correction_of_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 30, (rng.integers(2, 6), rng.integers(2, 6)))
    rows, columns = table.shape
    n = table.sum()
    phi_squared = association(table, method="cramer") ** 2 * (min(rows, columns) - 1)
    numerator = max(0.0, phi_squared - (rows - 1) * (columns - 1) / (n - 1))
    rows_corrected, columns_corrected = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    assert cramers_v(table) == pytest.approx(np.sqrt(numerator / (min(rows_corrected, columns_corrected) - 1)))


def test_cramers_v_at_its_ends() -> None:
    assert cramers_v(np.diag([20, 30, 10])) == pytest.approx(1.0)
    assert cramers_v(np.full((3, 4), 25)) == 0.0
    assert cramers_v(np.array([[5, 7]])) is None
    assert cramers_v(np.array([[5, 7], [0, 0]])) is None
    assert cramers_v(np.eye(6)) is None
    assert cramers_v(np.zeros((0, 0))) is None


def test_bias_correction_keeps_noise_low() -> None:
    rng = np.random.default_rng(1)
    corrected, plain = [], []
    for _ in range(200):
        table = pd.crosstab(rng.integers(0, 10, 60), rng.integers(0, 3, 60)).to_numpy()
        corrected.append(cramers_v(table))
        plain.append(association(table, method="cramer"))
    assert np.mean(corrected) < 0.12 < 0.3 < np.mean(plain)


def clips_for_probe(groups: int, per_group: int, rng: np.random.Generator) -> pd.DataFrame:
    """Every group has its own file size and one label: clips of a group tell each other's label, groups tell nothing."""
    rows = []
    for group in range(groups):
        size = int(rng.integers(10_000, 1_000_000))
        rows += [
            {
                "video_id": f"{group}/{clip}",
                "group_id": str(group),
                "label": "ab"[group % 2],
                "codec": "h264",
                "container": "mp4",
                "fps": 25.0,
            }
            | {"width": 64, "height": 64, "duration_s": 2.0, "bytes": size + clip}
            for clip in range(per_group)
        ]
    return pd.DataFrame(rows)


def test_the_probe_by_clip_sees_groups_and_by_group_does_not() -> None:
    probe = shortcut_probe(clips_for_probe(40, 5, np.random.default_rng(0)))
    assert probe["by_clip"]["accuracy"] > 0.9
    assert abs(probe["by_group"]["accuracy"] - 0.5) < 0.2
    assert (probe["clips"], probe["folds"], probe["majority"]) == (200, 5, 0.5)


def test_the_probe_does_not_depend_on_the_order_of_rows() -> None:
    clips = clips_for_probe(12, 3, np.random.default_rng(2))
    assert shortcut_probe(clips) == shortcut_probe(clips.sample(frac=1, random_state=3))


def test_the_probe_says_why_it_cannot_measure() -> None:
    clips = clips_for_probe(4, 5, np.random.default_rng(0))
    assert "3 groups each" in shortcut_probe(clips)["why_not"]
    assert shortcut_probe(clips)["left_out"] == ["a", "b"]
    assert "no label" in shortcut_probe(clips.assign(label=None))["why_not"]


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("CC BY-NC-ND 4.0", "nd"),
        ("CC BY-NC-SA 3.0", "nc"),
        ("CC-BY-SA-4.0", "sa"),
        ("CC BY 2.0", "by"),
        ("MIT", "by"),
        ("CC0-1.0", "public domain"),
        ("Public Domain", "public domain"),
        ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0", "nd"),
        ("available by request", None),
        ("", None),
        (None, None),
    ],
)
def test_licence_kinds(licence: str | None, kind: str | None) -> None:
    assert licence_kind(licence) == kind


def test_licences_sort_by_strictness() -> None:
    strictest_first = ["CC BY-NC-ND 4.0", "CC BY-ND 4.0", "CC BY-NC-SA 4.0", "CC BY-NC 4.0", "CC BY-SA 4.0", "CC BY 4.0", "CC0"]
    assert sorted(strictest_first[::-1], key=licence_strictness, reverse=True) == strictest_first


def test_contact_sheets_spread_over_groups() -> None:
    rows = [("s", f"v{group}", index, f"g{group}") for group in range(6) for index in range(10)]
    frames = pd.DataFrame(rows, columns=["source", "video_id", "frame_index", "group_id"])
    assert list(evenly_over_groups(frames, 3)["group_id"]) == ["g1", "g3", "g5"]
    assert evenly_over_groups(frames, 12)["group_id"].value_counts().to_dict() == {f"g{group}": 2 for group in range(6)}
    assert len(evenly_over_groups(frames, 100)) == 60
    assert evenly_over_groups(frames.iloc[:0], 5).empty
    assert evenly_over_groups(frames, 12).equals(evenly_over_groups(frames.sample(frac=1, random_state=0), 12))


def test_worst_takes_one_frame_of_a_clip() -> None:
    frames = pd.DataFrame({"video_id": ["a", "a", "b", "c"], "frame_index": [0, 1, 0, 0], "m": [2.0, 1.0, 3.0, 0.5]})
    assert list(worst(frames, "m", 2)["m"]) == [0.5, 1.0]


def test_audit_of_a_folder_without_a_data_set_is_the_users_mistake(tmp_path: Path) -> None:
    from usdata.errors import DataSetError

    with pytest.raises(DataSetError, match="is not a data set"):
        audit(tmp_path)
