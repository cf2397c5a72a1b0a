"""`usdata compare`: of planted changes each is told, and nothing else; brute force finds the same; pictures are not needed."""

import copy
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import usdata
from tests.command_lines import run_here
from tests.usdata.auditing.planted import Planted, duplicate, frame, video
from usdata import manifest
from usdata.comparing import Change, CompareResult, compare
from usdata.comparing.result import ClipFrames, FrameChanges, Regrouping
from usdata.comparing.terminal import print_comparison
from usdata.errors import DataSetError

RECIPE = {"name": "planted", "sources": [{"name": "clinic", "sampling": {"hz": 5}}], "folds": {"count": 2}}


def written(planted: Planted, folder: Path, **about: Any) -> Path:
    planted.write(folder, images=False)
    manifest.write_about(folder, {**manifest.read_about(folder), "recipe": RECIPE, **about})
    return folder


def fresh() -> Planted:
    """Twelve clips of six patients; every clip has its own pixels, the first four clips are in train, then two in val, the rest in test."""
    planted = Planted(12)
    for row in planted.frames:
        row["pixel_sha256"] = f"{abs(hash_of(row['frame_id'])):064x}"
        number = int(row["video_id"][-2:])
        row["split"] = "train" if number < 8 else "val" if number < 10 else "test"
    return planted


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode(), "big") % 10**40


def differing_fields(result: CompareResult) -> set[str]:
    """Every field of the result in which something differs."""
    empty = CompareResult(result.a, result.b)
    same = {"a", "b", "clips_both", "counts"}
    return {name for name, value in vars(result).items() if name not in same and value != getattr(empty, name)}


def frames_of(planted: Planted, number: int) -> list[dict[str, Any]]:
    return [row for row in planted.frames if row["video_id"] == planted.videos[number]["video_id"]]


def drop(planted: Planted, number: int) -> None:
    planted.drop_frames(planted.videos[number]["video_id"])
    del planted.videos[number]


def rename(planted: Planted, number: int) -> None:
    old = planted.videos[number]["video_id"]
    planted.videos[number]["video_id"] = "clinic/again"
    for row in (*planted.frames, *planted.excluded):
        if row["video_id"] == old:
            row["video_id"] = "clinic/again"
            if "frame_id" in row:
                row |= {
                    "frame_id": f"clinic/again/{row['frame_index']}",
                    "path": f"images/clinic/again/again_frame{row['frame_index']}.png",
                }


def fail(planted: Planted, number: int) -> None:
    planted.drop_frames(planted.videos[number]["video_id"])
    planted.videos[number] |= {"status": "failed", "reason": "does not decode", "frames_kept": 0}


def move(planted: Planted, numbers: range, split: str) -> None:
    for number in numbers:
        for row in frames_of(planted, number):
            row["split"] = split


def regroup(planted: Planted, numbers: range, group: str) -> None:
    for number in numbers:
        planted.set_video(number, group_id=group)


def repatient(planted: Planted, numbers: range, patient: str | None) -> None:
    for number in numbers:
        planted.set_video(number, patient_id=patient)


def fold(planted: Planted, mapping: dict[int, int | None], numbers: range = range(12)) -> None:
    for number in numbers:
        for row in frames_of(planted, number):
            row["fold"] = mapping[row["fold"]]


def add_frame(planted: Planted, number: int) -> None:
    planted.frames.append(frame(planted.videos[number], 7, split="train", fold=frames_of(planted, number)[0]["fold"]))


def box(planted: Planted, number: int, x: int) -> None:
    planted.videos[number] |= {"fov_kind": "rectangle", "fov_origin": "estimate", "fov_x": x, "fov_y": 0, "fov_width": 40, "fov_height": 20}


def key(planted: Planted, number: int, **values: Any) -> None:
    planted.videos[number] |= values


# What is done to B, and the fields in which it must differ: these, and no other.
PLANTED: dict[str, tuple[Callable[[Planted], Any], set[str]]] = {
    "removed": (lambda b: drop(b, 3), {"clips_removed", "frames", "excluded", "excluded_rows"}),
    "renamed": (lambda b: rename(b, 3), {"clips_renamed", "excluded_rows"}),
    "other bytes": (lambda b: key(b, 3, sha256="e" * 64), {"clips_changed"}),
    "failed": (lambda b: fail(b, 3), {"status", "frames", "excluded", "excluded_rows"}),
    "relabelled": (lambda b: b.set_video(5, label="malignant"), {"labels"}),
    "source's labels": (lambda b: key(b, 3, labels=["birads=4"]), {"source_labels"}),
    "moved": (lambda b: move(b, range(2, 4), "val"), {"splits", "crossings", "frames"}),
    "patients merged": (lambda b: repatient(b, range(2, 4), "p0"), {"patients"}),
    "patient torn": (lambda b: repatient(b, range(2, 3), "p77"), {"patients"}),
    "groups merged": (lambda b: regroup(b, range(2, 4), "clinic/p0"), {"groups"}),
    "group renamed": (lambda b: regroup(b, range(2, 4), "clinic/else"), {"groups"}),
    "folds renumbered": (lambda b: fold(b, {0: 1, 1: 0}), {"fold_names"}),
    "fold moved": (lambda b: fold(b, {0: 1, 1: 0}, range(2, 4)), {"folds"}),
    "folds gone": (lambda b: fold(b, {0: None, 1: None}), {"folds"}),
    "frame added": (lambda b: add_frame(b, 3), {"frames"}),
    "frame removed": (lambda b: b.frames.remove(frames_of(b, 3)[1]), {"frames"}),
    "other pixels": (lambda b: frames_of(b, 3)[1].update(pixel_sha256="e" * 64), {"frames"}),
    "field of view": (lambda b: box(b, 3, 10), {"fields_of_view"}),
    "reason of a frame": (lambda b: b.excluded[5].update(reason="blank"), {"excluded", "excluded_rows"}),
    "likeness of a frame": (lambda b: b.excluded[5].update(similarity=0.5), {"excluded_rows"}),
    "pair of duplicates": (lambda b: b.duplicates.append(duplicate("clinic/v01", "clinic/v05")), {"duplicates"}),
    "probe": (lambda b: key(b, 3, probe="linear"), {"columns"}),
    "flags": (lambda b: key(b, 3, flags=["frozen"]), {"columns"}),
    "label_index": (lambda b: frames_of(b, 3)[0].update(label_index=0), {"columns"}),
    "quality": (lambda b: frames_of(b, 3)[0].update(quality_std=31.0), {"columns"}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(fresh(), tmp_path_factory.mktemp("base") / "a")


@pytest.mark.parametrize("what", PLANTED)
def test_what_was_planted_is_told_and_nothing_else(what: str, base: Path, tmp_path: Path) -> None:
    plant, fields = PLANTED[what]
    changed = fresh()
    plant(changed)
    result = compare(base, written(changed, tmp_path / "b"))
    assert differing_fields(result) == fields
    assert result.differs
    assert result.rows_differ
    back = compare(tmp_path / "b", base)
    others = {"clips_removed": "clips_added"}
    assert differing_fields(back) == {others.get(name, name) for name in fields}


def changed_by(tmp_path: Path, plant: Callable[[Planted], Any], before: Callable[[Planted], Any] = lambda planted: None) -> CompareResult:
    first, second = fresh(), fresh()
    before(first)
    plant(second)
    return compare(written(first, tmp_path / "a"), written(second, tmp_path / "b"))


def test_equal_sets_are_equal_wherever_they_lie(tmp_path: Path) -> None:
    result = changed_by(tmp_path, lambda b: None)
    assert not result.differs
    assert result.sentence == "b is a: nothing differs"
    assert compare(tmp_path / "a", tmp_path / "a").differs is False


def test_values_before_and_after_are_told(tmp_path: Path) -> None:
    def plant(planted: Planted) -> None:
        planted.set_video(4, label=None)
        fail(planted, 5)
        planted.frames.remove(frames_of(planted, 0)[1])
        add_frame(planted, 0)
        frames_of(planted, 0)[0]["pixel_sha256"] = "e" * 64
        planted.duplicates = [duplicate("clinic/v01", "clinic/v02") | {"kind": "content"}]

    def before(planted: Planted) -> None:
        planted.duplicates = [duplicate("clinic/v01", "clinic/v02"), duplicate("clinic/v03", "clinic/v04")]

    result = changed_by(tmp_path, plant, before)
    assert result.labels == (Change("clinic/v04", "benign", None),)
    assert [(each.video_id, each.before, each.after, each.reason_after) for each in result.status] == [
        ("clinic/v05", "ok", "failed", "does not decode")
    ]
    assert result.frames.by_clip == (ClipFrames("clinic/v00", 1, 1, 1), ClipFrames("clinic/v05", 0, 3, 0))
    assert result.duplicates == (Change("clinic/v01 = clinic/v02", "pixels", "content"), Change("clinic/v03 = clinic/v04", "pixels", None))
    counts = {(each.label, each.split): each for each in result.counts}
    assert sum(each.frames_before for each in counts.values()) == 36
    assert sum(each.frames_after for each in counts.values()) == 33
    assert sum(each.clips_after for each in counts.values()) == 11


def test_groups_that_cross_to_the_test_part_are_said_first(tmp_path: Path) -> None:
    result = changed_by(tmp_path, lambda b: move(b, range(2, 4), "test"))
    assert [(each.part_before, each.part_after, each.group_after, each.patients) for each in result.crossings] == [
        ("train", "test", "clinic/p1", ("clinic/p1",))
    ]
    assert result.sentence.startswith(
        "1 group of a's train stands in b's test: weights trained on one set must not be tested on the other."
    )
    assert {(each.name, each.before, each.after) for each in result.splits} == {
        ("clinic/v02", "train", "test"),
        ("clinic/v03", "train", "test"),
    }
    assert result.frames.moved == 6


def test_a_new_clip_of_a_patient_who_was_trained_on_crosses_too(tmp_path: Path) -> None:
    def plant(planted: Planted) -> None:
        clip = video(12, patient_id="p0", group_id="clinic/other")
        planted.videos.append(clip)
        planted.frames.append(frame(clip, 0, split="test", fold=0))

    result = changed_by(tmp_path, plant)
    assert result.splits == ()
    assert [(each.part_before, each.part_after, each.group_before, each.group_after) for each in result.dangerous] == [
        ("train", "test", "clinic/p0", "clinic/other")
    ]
    assert result.sentence.endswith("no clip moved between splits")


def test_a_group_of_another_name_is_followed_by_its_clips(tmp_path: Path) -> None:
    def plant(planted: Planted) -> None:
        regroup(planted, range(2, 4), "clinic/renamed")
        repatient(planted, range(2, 4), None)
        move(planted, range(2, 4), "test")

    result = changed_by(tmp_path, plant)
    assert [(each.group_before, each.group_after) for each in result.dangerous] == [("clinic/p1", "clinic/renamed")]
    assert result.groups == Regrouping(renamed=(Change("clinic/p1", "clinic/p1", "clinic/renamed"),))
    assert result.patients == Regrouping(forgotten=("clinic/v02", "clinic/v03"))


def test_what_leaked_before_and_leaks_alike_is_no_crossing(tmp_path: Path) -> None:
    def leak(planted: Planted) -> None:
        move(planted, range(2, 3), "test")

    assert not changed_by(tmp_path, leak, leak).differs


def test_other_names_of_all_patients_are_no_regrouping(tmp_path: Path) -> None:
    def plant(planted: Planted) -> None:
        for number in range(12):
            planted.set_video(number, patient_id=f"x{number // 2}", group_id=f"clinic/x{number // 2}")

    result = changed_by(tmp_path, plant)
    assert len(result.groups.renamed) == len(result.patients.renamed) == 6
    assert differing_fields(result) == {"groups", "patients"}


def test_merged_and_torn_groups_are_named(tmp_path: Path) -> None:
    def plant(planted: Planted) -> None:
        regroup(planted, range(3, 6), "clinic/p1")  # v03, v04, v05: p1 keeps both clips and takes p2 in
        regroup(planted, range(7, 8), "clinic/new")  # of p3's two clips one leaves

    result = changed_by(tmp_path, plant)
    assert result.groups.merged == (Change("clinic/p1", ("clinic/p1", "clinic/p2"), 4),)
    assert result.groups.torn == (Change("clinic/p3", 2, ("clinic/new", "clinic/p3")),)


def test_a_renamed_clip_is_compared_under_both_names(tmp_path: Path) -> None:
    def plant(planted: Planted) -> None:
        rename(planted, 3)
        planted.set_video(3, label="benign")

    result = changed_by(tmp_path, plant)
    assert result.clips_renamed == (Change("clinic/again", "clinic/v03", "clinic/again"),)
    assert [each.name for each in result.labels] == ["clinic/again"]
    assert differing_fields(result) == {"clips_renamed", "labels", "excluded_rows"}


def test_copies_are_paired_one_to_one(tmp_path: Path) -> None:
    """Two clips of equal bytes in A, both renamed, and one of three in B is new."""

    def before(planted: Planted) -> None:
        key(planted, 0, sha256="a" * 64)
        key(planted, 1, sha256="a" * 64)

    def plant(planted: Planted) -> None:
        before(planted)
        for number in (0, 1):
            planted.drop_frames(planted.videos[number]["video_id"])
            key(planted, number, video_id=f"clinic/new{number}", frames_kept=0)
        planted.videos.append({**planted.videos[0], "video_id": "clinic/new2"})

    result = changed_by(tmp_path, plant, before)
    assert [(each.before, each.after) for each in result.clips_renamed] == [("clinic/v00", "clinic/new0"), ("clinic/v01", "clinic/new1")]
    assert result.clips_added == ("clinic/new2",)


def test_boxes_are_compared_by_intersection_over_union(tmp_path: Path) -> None:
    def boxes(planted: Planted, shift: int) -> None:
        box(planted, 1, 0)
        box(planted, 2, shift)
        box(planted, 3, 3 * shift)

    result = changed_by(tmp_path, lambda b: boxes(b, 20), lambda a: boxes(a, 0))
    assert [(each.video_id, each.overlap) for each in result.fields_of_view] == [
        ("clinic/v03", 0.0),
        ("clinic/v02", round(20 / 60, 4)),
    ]


def test_recipes_versions_and_classes_by_key(tmp_path: Path) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["sources"] = [{"name": "ward", "root": "w"}, {"name": "clinic", "sampling": {"hz": 2}}]
    written(fresh(), tmp_path / "a")
    changed = {
        "recipe": recipe,
        "versions": {"av": "15.0", "usdata": "0.1"},
        "classes": ["malignant", "benign"],
        "split_origin": {"name": "x"},
    }
    written(fresh(), tmp_path / "b", **changed)
    result = compare(tmp_path / "a", tmp_path / "b")
    assert result.recipe == (Change("sources.clinic.sampling.hz", 5, 2), Change("sources.ward.root", None, "w"))
    assert result.versions == (Change("av", "14.0", "15.0"),)
    assert result.about == (Change("split_origin.name", None, "x"),)
    assert result.classes == (Change("classes", ["benign", "malignant"], ["malignant", "benign"]),)
    assert result.label_index == (Change("benign", 0, 1), Change("malignant", 1, 0))


def test_versions_alone_are_said_to_be_all(tmp_path: Path) -> None:
    written(fresh(), tmp_path / "a")
    written(fresh(), tmp_path / "b", versions={"av": "15.0", "usdata": "0.1"})
    result = compare(tmp_path / "a", tmp_path / "b")
    assert result.differs
    assert not result.rows_differ
    assert result.sentence == "b is a row for row; only versions of av differ"


def test_other_columns_are_said(tmp_path: Path) -> None:
    result = changed_by(tmp_path, lambda b: key(b, 3, probe="linear"))
    assert result.sentence == "b is a with other values in 1 column; no clip moved between splits"
    assert [(each.table, each.column, each.rows, each.first) for each in result.columns] == [("videos", "probe", 1, ("clinic/v03",))]


def test_sets_that_share_nothing_say_so(tmp_path: Path) -> None:
    other = fresh()
    for number in range(12):
        old = other.videos[number]["video_id"]
        key(other, number, video_id=f"ward/v{number}", source="ward", sha256=f"{number + 100:064x}")
        for row in (*other.frames, *other.excluded):
            if row["video_id"] == old:
                row |= {"video_id": f"ward/v{number}", "source": "ward"}
    result = compare(written(fresh(), tmp_path / "a"), written(other, tmp_path / "b"))
    assert result.clips_both == 0
    assert "share no clip" in result.sentence
    assert (len(result.clips_added), len(result.clips_removed)) == (12, 12)


def test_random_changes_as_brute_force_finds_them(tmp_path: Path) -> None:
    for seed in range(3):
        draw = np.random.default_rng(seed)
        sides = []
        for name in ("a", "b"):
            planted = fresh()
            for number in range(11, -1, -1):
                if draw.random() < 0.2:
                    drop(planted, number)
                    continue
                planted.videos[number]["label"] = str(draw.choice(["benign", "malignant"]))
                for row in frames_of(planted, number):
                    row["label"] = planted.videos[number]["label"]
                    row["split"] = str(draw.choice(["train", "val", "test"]))
                    row["pixel_sha256"] = f"{draw.integers(3):064x}"
                    if draw.random() < 0.3:
                        planted.frames.remove(row)
            sides.append((planted, written(planted, tmp_path / f"{name}{seed}")))
        result = compare(sides[0][1], sides[1][1])
        videos = [{row["video_id"]: row for row in planted.videos} for planted, _ in sides]
        frames = [{row["frame_id"]: row for row in planted.frames} for planted, _ in sides]
        both = videos[0].keys() & videos[1].keys()
        assert set(result.clips_added) == videos[1].keys() - videos[0].keys()
        assert set(result.clips_removed) == videos[0].keys() - videos[1].keys()
        assert {each.name for each in result.labels} == {name for name in both if videos[0][name]["label"] != videos[1][name]["label"]}
        shared = {name for name in frames[0].keys() & frames[1].keys() if frames[0][name]["video_id"] in both}
        assert result.frames == FrameChanges(
            by_clip=tuple(
                ClipFrames(name, *numbers)
                for name in sorted(both)
                if any(
                    numbers := (
                        sum(row["video_id"] == name and key not in frames[0] for key, row in frames[1].items()),
                        sum(row["video_id"] == name and key not in frames[1] for key, row in frames[0].items()),
                        sum(row["video_id"] == name and row["pixel_sha256"] != frames[1][key]["pixel_sha256"]
                            for key, row in frames[0].items() if key in shared),
                    )
                )
            ),
            in_added_clips=sum(row["video_id"] not in videos[0] for row in frames[1].values()),
            in_removed_clips=sum(row["video_id"] not in videos[1] for row in frames[0].values()),
            moved=sum(frames[0][key]["split"] != frames[1][key]["split"] for key in shared),
        )  # fmt: skip
        parts = [
            {name: "+".join(sorted({row["split"] for row in side.values() if row["video_id"] == name})) for name in both} for side in frames
        ]
        moved = {name for name in both if parts[0][name] and parts[1][name] and parts[0][name] != parts[1][name]}
        assert {each.name for each in result.splits} == moved
        stands: list[dict[str, set[str]]] = [{}, {}]
        for side, stand in zip(frames, stands, strict=True):
            for row in side.values():
                stand.setdefault(row["group_id"], set()).add(row["split"])
        crossed = {
            (one, other, group)
            for group in stands[0].keys() & stands[1].keys()
            if stands[0][group] != stands[1][group]
            for one in stands[0][group]
            for other in stands[1][group]
            if one != other
        }
        assert {(each.part_before, each.part_after, each.group_after) for each in result.crossings} == crossed
        for part in ("train", "val", "test"):
            for side, when in zip(frames, ("before", "after"), strict=True):
                told = sum(getattr(each, f"frames_{when}") for each in result.counts if each.split == part)
                assert told == sum(row["split"] == part for row in side.values())


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    broken = fresh()
    broken.videos.append(broken.videos[0])
    with pytest.raises(DataSetError, match="two clips of the name clinic/v00"):
        compare(written(fresh(), tmp_path / "a"), written(broken, tmp_path / "b"))
    broken = fresh()
    broken.frames.append(broken.frames[0])
    with pytest.raises(DataSetError, match="holds a frame twice"):
        compare(tmp_path / "a", written(broken, tmp_path / "c"))


def test_sets_without_a_frame_are_compared(tmp_path: Path) -> None:
    empty = fresh()
    empty.frames = []
    assert compare(written(empty, tmp_path / "a"), written(empty, tmp_path / "b")).differs is False
    assert compare(tmp_path / "a", written(fresh(), tmp_path / "c")).frames.total("added") == 36
    nothing = fresh()
    nothing.videos, nothing.frames, nothing.excluded = [], [], []
    result = compare(written(nothing, tmp_path / "d"), tmp_path / "c")
    assert (result.clips_both, len(result.clips_added)) == (0, 12)


def test_the_terminal_reads_at_80_columns_and_is_not_steered(tmp_path: Path) -> None:
    evil = "clinic/\x1b[2J[red]" + "long_name" * 12

    def plant(planted: Planted) -> None:
        for plant_one, _ in PLANTED.values():
            try:
                plant_one(planted)
            except (IndexError, ValueError):
                continue
        key(planted, 4, sha256="d" * 64)
        planted.set_video(1, label="malignant")
        clip = video(20, video_id=evil, label="[bold]\x07")
        planted.videos.append(clip)
        planted.frames.append(frame(clip, 0))

    result = changed_by(tmp_path, plant)
    output = io.StringIO()
    print_comparison(result, Console(file=output, width=80, force_terminal=False))
    text = output.getvalue()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "long_name" not in line)
    assert "clips relabelled" in text


def test_the_command_fails_on_request_and_prints_json(tmp_path: Path) -> None:
    written(fresh(), tmp_path / "a")
    changed = fresh()
    changed.set_video(3, label="benign")
    written(changed, tmp_path / "b")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_here("usdata", "compare", *arguments)

    done = run(str(tmp_path / "a"), str(tmp_path / "b"), "--json", "--fail")
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert told["sentence"] == "b is a with 1 clip relabelled; no clip moved between splits"
    assert [each["name"] for each in told["labels"]] == ["clinic/v03"]
    assert str(tmp_path) not in done.stdout
    same = run(str(tmp_path / "a"), str(tmp_path / "a"), "--fail")
    assert same.returncode == 0
    assert "nothing differs" in " ".join(same.stdout.split())
    assert usdata.compare(tmp_path / "a", tmp_path / "b").to_json()["differs"] is True
