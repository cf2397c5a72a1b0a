"""Each finding stands when its fault is planted, names just the planted rows, and is absent from a clean set."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.usdata.auditing.planted import Planted, duplicate
from usdata.auditing import LEVELS, AuditResult, Finding, audit
from usdata.auditing.finding import FINDING_IDS


def findings_of(planted: Planted, folder: Path) -> dict[str, Finding]:
    return {finding.id: finding for finding in audit(planted.write(folder), write_report=False).findings}


def test_a_clean_set_has_no_findings(tmp_path: Path) -> None:
    result = audit(Planted().write(tmp_path), write_report=False)
    assert result.findings == []
    assert result.worst is None


def fail_two(planted: Planted) -> None:
    for number, reason in ((3, "moov atom not found"), (5, "0 bytes")):
        planted.set_video(number, status="failed", reason=reason, frames_kept=0, frames_decoded=0)
        planted.drop_frames(f"clinic/v{number:02}")


def damage(planted: Planted) -> None:
    planted.set_video(1, flags=["truncated"], frames_declared=30)
    planted.set_video(2, flags=["decode_errors"], decode_errors=4)


def repeat_a_clip(planted: Planted) -> None:
    planted.duplicates = [duplicate("clinic/v00", "clinic/v01")]


def repeat_across_patients(planted: Planted) -> None:
    # Patients 0 and 4 carry one label and stand in one fold.
    planted.duplicates = [duplicate("clinic/v00", "clinic/v01"), duplicate("clinic/v00", "clinic/v08")]


def conflict_in_a_pair(planted: Planted) -> None:
    planted.set_video(1, label="malignant")
    planted.duplicates = [duplicate("clinic/v00", "clinic/v01")]


def conflict_through_a_clip_without_label(planted: Planted) -> None:
    planted.set_video(1, label=None)
    planted.set_video(0, group_id="clinic/p0")
    for number in (2, 3):
        planted.set_video(number, group_id="clinic/p0", patient_id="p0")
    planted.duplicates = [duplicate("clinic/v00", "clinic/v01"), duplicate("clinic/v01", "clinic/v02")]


def leak_a_video(planted: Planted) -> None:
    for row in planted.frames:
        if row["video_id"] == "clinic/v00" and row["frame_index"] == 2:
            row["split"] = "test"


def mix_labels_in_a_patient(planted: Planted) -> None:
    planted.set_video(1, label="malignant")


def leak_a_group(planted: Planted) -> None:
    for row in planted.frames:
        if row["video_id"] == "clinic/v00":
            row["split"] = "test"


def leak_a_group_over_folds(planted: Planted) -> None:
    for row in planted.frames:
        if row["video_id"] == "clinic/v00":
            row["fold"] = 1


def leak_a_patient_alone(planted: Planted) -> None:
    planted.set_video(0, group_id="clinic/other")
    leak_a_group(planted)


def leak_a_pair(planted: Planted) -> None:
    # Patients 0 and 2 carry one label; 0 is in fold 0 and 2 in fold 1.
    planted.duplicates = [duplicate("clinic/v00", "clinic/v04")]


def leak_equal_frames(planted: Planted) -> None:
    for row in planted.frames:
        if row["frame_id"] in ("clinic/v00/1", "clinic/v04/2", "clinic/v05/0"):
            row["duplicate_group"] = "clinic/v00/1"


def too_many_folds(planted: Planted) -> None:
    for row in planted.frames:
        row["fold"] = int(row["patient_id"][1:])


def confound(planted: Planted) -> None:
    for clip in planted.videos:
        clip["codec"] = "mpeg4" if clip["label"] == "malignant" else "h264"


def freeze(planted: Planted) -> None:
    planted.set_video(7, flags=["frozen"], frames_unique=1)


def raise_the_rate(planted: Planted) -> None:
    rows = [row for row in planted.excluded if row["video_id"] == "clinic/v06"]
    for row in rows[:4]:
        row["reason"] = "near_repeat"
    planted.set_video(6, flags=["near_repeats"])


def upconvert(planted: Planted) -> None:
    planted.set_video(6, flags=["near_repeats", "upconverted"], fps=30.0, fps_effective=12.5)
    planted.set_video(7, flags=["upconverted"], fps_effective=None)


def spell_labels_oddly(planted: Planted) -> None:
    # Each in a pair of clips of one patient, so that nothing contradicts.
    for numbers, label in (((0, 1), "Benign"), ((2, 3), "n/a")):
        for number in numbers:
            planted.set_video(number, label=label)


def wait_for_review(planted: Planted) -> None:
    planted.set_video(1, review="needed", review_reason="no field of view: nothing moves")
    planted.set_video(2, review="accepted", review_reason="text inside the field of view")
    planted.set_video(3, review="needed", review_reason="text", status="excluded", reason="held back for review: text", frames_kept=0)
    planted.drop_frames("clinic/v03")


def leave_text(planted: Planted) -> None:
    planted.set_video(1, overlays=["graphics", "text"])
    planted.set_video(2, overlays=["text"], review="accepted")
    planted.set_video(3, overlays=["caliper"])


def no_folds(planted: Planted) -> None:
    for row in planted.frames:
        row["fold"] = None


def more_folds_asked_than_made(planted: Planted) -> None:
    no_folds(planted)
    planted.recipe = {"folds": {"count": 3}}


def show_a_title_everywhere(planted: Planted) -> None:
    for row in planted.frames:
        if row["frame_index"] == 0:
            row["duplicate_group"] = "clinic/v00/0"


def blank(planted: Planted) -> None:
    for row in planted.excluded:
        if row["video_id"] in ("clinic/v02", "clinic/v09") and row["frame_index"] in (10, 11):
            row["reason"] = "blank"


def shorten(planted: Planted) -> None:
    planted.set_video(4, frames_unique=7, flags=["short"])
    planted.set_video(5, frames_unique=8)


def unlabel(planted: Planted) -> None:
    planted.set_video(4, label=None)


def forget_the_patient(planted: Planted) -> None:
    planted.set_video(4, patient_id=None)


def mix_licences(planted: Planted) -> None:
    planted.set_video(4, licence="CC BY-NC-ND 4.0")
    planted.set_video(5, licence="CC BY-NC-SA 4.0")


def lose_a_licence(planted: Planted) -> None:
    planted.set_video(4, licence=None)


def lose_frames(planted: Planted) -> None:
    planted.excluded = [row for row in planted.excluded if (row["video_id"], row["frame_index"]) != ("clinic/v03", 11)]


CASES: list[tuple[Callable[[Planted], None], str, str, tuple[str, ...]]] = [
    (fail_two, "failed-clips", "warning", ("clinic/v03.mp4: moov atom not found", "clinic/v05.mp4: 0 bytes")),
    (
        damage,
        "damaged-clips",
        "warning",
        (
            "clinic/v01: truncated, 0 decode errors, 12 of 30 declared frames decoded",
            "clinic/v02: 4 decode errors, 12 of 12 declared frames decoded",
        ),
    ),
    (repeat_a_clip, "duplicate-clips", "warning", ("clinic/v00 = clinic/v01",)),
    (
        repeat_across_patients,
        "duplicate-clips",
        "error",
        (
            "clinic/v00 = clinic/v01",
            "clinic/v00 = clinic/v08 (under different patients p0 and p4, groups clinic/p0 and clinic/p4)",
        ),
    ),
    (
        conflict_in_a_pair,
        "conflicting-labels",
        "error",
        ("clinic/v00 = clinic/v01 (benign and malignant)", "group clinic/p0: benign, malignant"),
    ),
    (
        conflict_through_a_clip_without_label,
        "conflicting-labels",
        "error",
        ("clinic/v00 = clinic/v02 through others (benign and malignant)", "group clinic/p0: benign, malignant"),
    ),
    (leak_a_video, "leakage-videos", "error", ("clinic/v00: test, train, fold 0",)),
    (mix_labels_in_a_patient, "conflicting-labels", "note", ("group clinic/p0: benign, malignant",)),
    (
        leak_a_group,
        "leakage-groups",
        "error",
        ("group clinic/p0: test, train, fold 0", "patient clinic/p0: test, train, fold 0"),
    ),
    (
        leak_a_group_over_folds,
        "leakage-groups",
        "error",
        ("group clinic/p0: train, folds 0 1", "patient clinic/p0: train, folds 0 1"),
    ),
    (leak_a_patient_alone, "leakage-groups", "error", ("patient clinic/p0: test, train, fold 0",)),
    (leak_a_pair, "leakage-duplicates", "error", ("clinic/v00 (train, fold 0) = clinic/v04 (train, fold 1)",)),
    (
        leak_equal_frames,
        "leakage-duplicates",
        "error",
        ("clinic/v00 (train, fold 0) = clinic/v04 (train, fold 1)", "clinic/v00 (train, fold 0) = clinic/v05 (train, fold 1)"),
    ),
    (too_many_folds, "too-few-groups", "warning", ("benign: 3 groups, enough for 3 folds", "malignant: 2 groups, enough for 2 folds")),
    (confound, "single-source-label", "warning", ("codec: Cramér's V 1.00",)),
    (freeze, "frozen-clips", "warning", ("clinic/v07",)),
    (raise_the_rate, "near-repeats", "note", ("clinic/v06: 4 of 12 frames repeat an earlier one",)),
    (
        upconvert,
        "upconverted-clips",
        "warning",
        ("clinic/v06: 30.0 Hz, of which 12.5 Hz differ", "clinic/v07: 25.0 Hz, of which unknown rate differ"),
    ),
    (
        spell_labels_oddly,
        "odd-labels",
        "warning",
        ("'Benign' (2 clips) = 'benign' (4 clips)", "'n/a' (2 clips) reads like a missing label"),
    ),
    (wait_for_review, "review-waiting", "warning", ("clinic/v01: no field of view: nothing moves", "clinic/v03 (held back): text")),
    (leave_text, "text-in-pictures", "note", ("clinic/v01",)),
    (no_folds, "too-few-groups", "warning", ("benign: 3 groups, enough for 3 folds", "malignant: 2 groups, enough for 2 folds")),
    (more_folds_asked_than_made, "too-few-groups", "warning", ("malignant: 2 groups, enough for 2 folds",)),
    (blank, "blank-frames", "note", ("clinic/v02: 2 blank frames", "clinic/v09: 2 blank frames")),
    (shorten, "short-clips", "note", ("clinic/v04: 7 unique frames",)),
    (unlabel, "unlabelled", "note", ("clinic/v04",)),
    (forget_the_patient, "unknown-patients", "warning", ("clinic/v04",)),
    (
        mix_licences,
        "licence-mix",
        "note",
        ("CC BY-NC-ND 4.0: 1 clip", "CC BY-NC-SA 4.0: 1 clip", "CC BY 4.0: 8 clips"),
    ),
    (lose_a_licence, "licence-mix", "warning", ("CC BY 4.0: 9 clips", "no licence given: 1 clip")),
    (lose_frames, "unaccounted-frames", "error", ("clinic/v03: 12 decoded, 11 kept or excluded",)),
]
# What a fault brings with it by its nature.
COMPANIONS = {
    "conflicting-labels": {"duplicate-clips", "unlabelled"},
    "leakage-videos": {"leakage-groups"},
    "leakage-duplicates": {"duplicate-clips"},
    "odd-labels": {"too-few-groups"},
}


@pytest.mark.parametrize(("spoil", "name", "level", "rows"), CASES, ids=lambda value: value.__name__ if callable(value) else None)
def test_a_planted_fault_is_found_and_nothing_else(
    spoil: Callable[[Planted], None], name: str, level: str, rows: tuple[str, ...], tmp_path: Path
) -> None:
    planted = Planted()
    spoil(planted)
    found = findings_of(planted, tmp_path)
    assert name in found
    assert found[name].level == level
    assert found[name].rows == rows
    assert found[name].message.endswith(".")
    assert found[name].advice.endswith(".")
    assert found.keys() - {name} <= COMPANIONS.get(name, set())


def test_a_frame_that_many_clips_hold_is_one_row_and_not_a_row_a_pair(tmp_path: Path) -> None:
    planted = Planted(clips=24)
    show_a_title_everywhere(planted)
    finding = {finding.id: finding for finding in audit(planted.write(tmp_path), write_report=False).findings}["leakage-duplicates"]
    assert finding.rows == ("frame clinic/v00/0: in 24 clips (train, folds 0 1)",)
    assert finding.message == "1 frame that many clips hold stands on two sides of a split or fold."


def test_text_that_is_painted_over_is_told_no_more(tmp_path: Path) -> None:
    planted = Planted()
    leave_text(planted)
    planted.recipe = {"image": {"crop": "none", "overlays": "inpaint"}}
    assert findings_of(planted, tmp_path) == {}


def test_the_guide_lists_every_finding_and_its_levels() -> None:
    guide = Path(__file__).resolve().parents[3] / "docs" / "guide" / "audit.md"
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z, ]+) \|", guide.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(FINDING_IDS)
    told = {name: set(levels.split(", ")) for name, levels in rows}
    assert all(levels <= set(LEVELS) for levels in told.values())
    assert all(level in told[name] for _, name, level, _ in CASES)


def test_missing_images_are_named_one_by_one(tmp_path: Path) -> None:
    planted = Planted()
    planted.write(tmp_path)
    gone = "images/clinic/v03/v03_frame1.png"
    (tmp_path / gone).unlink()
    [finding] = audit(tmp_path, write_report=False).findings
    assert (finding.id, finding.level, finding.rows) == ("missing-images", "error", (gone,))
    assert "1 image of 30" in finding.message


def test_a_path_that_leaves_the_folder_counts_as_missing(tmp_path: Path) -> None:
    planted = Planted()
    planted.write(tmp_path / "set")
    (tmp_path / "outside.png").write_bytes((tmp_path / "set" / planted.frames[0]["path"]).read_bytes())
    planted.frames[0]["path"] = "../outside.png"
    planted.write(tmp_path / "set", images=False)
    [finding] = audit(tmp_path / "set").findings
    assert (finding.id, finding.rows) == ("missing-images", ("../outside.png",))


def test_a_shortcut_is_found_only_where_metadata_tells_the_label(tmp_path: Path) -> None:
    planted = Planted(clips=40)
    for clip in planted.videos:
        clip["bytes"] = 90_000 if clip["label"] == "malignant" else 40_000
    result = audit(planted.write(tmp_path), write_report=False)
    assert [finding.id for finding in result.findings] == ["shortcut"]
    probe = result.statistics["shortcut"]
    assert probe["by_group"]["accuracy"] == probe["by_clip"]["accuracy"] == 1.0
    assert probe["majority"] == 0.5
    assert "100% of 40 clips" in result.findings[0].message


def test_findings_come_worst_first(tmp_path: Path) -> None:
    planted = Planted()
    for spoil in (blank, freeze, leak_a_group, unlabel, damage):
        spoil(planted)
    result: AuditResult = audit(planted.write(tmp_path), write_report=False)
    levels = [finding.level for finding in result.findings]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    assert result.worst == "error"
    assert {"error", "warning", "note"} == set(levels)
