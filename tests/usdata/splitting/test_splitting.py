"""`usdata split`: byte for byte what a build would give, proved on the tables, whole at every moment; published splits read and judged."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import usdata
from tests.command_lines import run_here
from tests.usdata.auditing.planted import Planted, duplicate
from tests.usdata.clips import speckle_frames, write_video
from uscl.evaluation.folds import independent_groups, refuse_leakage
from usdata import manifest
from usdata.building import build
from usdata.errors import UserError
from usdata.recipe import Recipe
from usdata.reviewing import take_answers
from usdata.splitting import prove, split
from usdata.splitting.terminal import print_split

REPOSITORY = Path(__file__).resolve().parents[3]


def make_recipe(**changes: object) -> Recipe:
    source = {
        "name": "ward",
        "table": "labels.csv",
        "columns": {"path": "path", "patient": "patient", "label": "label"},
        "patient_ids": "public",
        "sampling": {"rule": "all"},
    }
    return Recipe.model_validate({"name": "test", "sources": [source], "folds": {"count": 3}} | changes)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of ten patients; one is a copy of another patient's, one shares a single frame with another patient's."""
    folder = tmp_path_factory.mktemp("split") / "raw"
    lines = ["path,patient,label"]
    frames = {index: speckle_frames(6, seed=index) for index in range(11)}
    frames[9] = [*frames[9][:5], frames[3][2]]
    for index in range(11):
        write_video(folder / f"clip{index}.mkv", frames[index], codec="ffv1")
        lines.append(f"clip{index}.mkv,p{min(index, 8) if index != 9 else 9},{'ab'[index % 2]}")
    shutil.copy(folder / "clip0.mkv", folder / "copy.mkv")
    lines.append("copy.mkv,p20,a")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def built(raw: Path) -> Path:
    return build(make_recipe(), raw=raw, out=raw.parent / "set", workers=2).out


@pytest.fixture
def standing(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "set"))


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def audited(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("audited") / "set"))
    usdata.audit(folder)
    return folder


CHANGES = [
    ({"folds": 4}, {"folds": {"count": 4}}),
    ({"folds": 0}, {"folds": {"count": 0}}),
    ({"folds": 2, "seed": 5}, {"folds": {"count": 2, "seed": 5}, "split": {"seed": 5}}),
    ({"val": 0.2, "test": 0.3, "seed": 1}, {"folds": {"count": 3, "seed": 1}, "split": {"val": 0.2, "test": 0.3, "seed": 1}}),
]


@pytest.mark.parametrize(("arguments", "sections"), CHANGES, ids=str)
def test_it_gives_the_bytes_of_a_build_with_the_same_recipe(
    arguments: dict[str, Any], sections: dict[str, Any], raw: Path, audited: Path, tmp_path: Path
) -> None:
    standing = Path(shutil.copytree(audited, tmp_path / "set"))
    result = split(standing, **arguments)
    assert result.written
    assert any("report.html" in note for note in result.notes)
    fresh = build(make_recipe(**sections), raw=raw, out=tmp_path / "fresh", workers=1)
    assert tree_bytes(standing) == tree_bytes(fresh.out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "set"]
    assert build(make_recipe(**sections), raw=raw, out=standing, workers=1).unchanged
    assert not split(standing, **arguments).written


def test_the_bytes_do_not_depend_on_how_a_large_table_is_read(tmp_path: Path) -> None:
    """More rows than a row group holds."""
    planted = Planted(2)
    planted.frames = [{**planted.frames[0], "frame_id": f"clinic/v00/{n}", "frame_index": n} for n in range(70_000)]
    planted.write(tmp_path / "set", images=False)
    (tmp_path / "set" / "dataset.json").unlink()
    about = {"name": "x", "classes": [], "recipe_digest": "ab" * 32}
    manifest.write_about(tmp_path / "set", about)
    before = (tmp_path / "set" / "frames.parquet").read_bytes()
    from usdata.successor import with_parts, write_successor

    frames = manifest.open_dataset(tmp_path / "set").frames
    (tmp_path / "next").mkdir()
    table = manifest.read_table(tmp_path / "set", manifest.FRAMES)
    same = with_parts(table, frames["split"].tolist(), [int(fold) for fold in frames["fold"]])
    write_successor(tmp_path / "set", tmp_path / "next", about, {manifest.FRAMES: same})
    assert (tmp_path / "next" / "frames.parquet").read_bytes() == before


def test_clips_that_share_one_frame_stand_together_though_their_groups_differ(built: Path) -> None:
    opened = usdata.load(built)
    videos = opened.videos.set_index("video_id")
    assert videos.group_id["ward/clip3_mkv"] != videos.group_id["ward/clip9_mkv"]
    assert videos.group_id["ward/clip0_mkv"] == videos.group_id["ward/copy_mkv"]
    for seed in range(6):
        folder = built.parent / f"seed{seed}"
        shutil.copytree(built, folder)
        result = split(folder, folds=4, seed=seed)
        folds = usdata.load(folder).frames.groupby("video_id").fold.unique()
        assert list(folds["ward/clip3_mkv"]) == list(folds["ward/clip9_mkv"])
        assert "10 groups stand together as 9, because clips of them share frames" in result.notes


def test_the_evaluator_takes_these_folds_for_independent(built: Path, standing: Path) -> None:
    """By its own code, which shares nothing with ours."""
    split(standing, folds=4, seed=2)
    opened = usdata.load(standing)
    refuse_leakage(opened.frames, opened.frames["fold"].to_numpy(dtype=np.int64), opened.duplicates, subject="set")
    assert len(set(independent_groups(opened.frames, opened.duplicates))) == 9


def test_the_statement_counts_what_was_checked(standing: Path) -> None:
    result = split(standing, folds=2)
    proof = result.proofs[0]
    assert proof.statement == (
        "2 folds of 10 groups, 12 clips, 72 frames: no patient, video, group, equal frame or verified duplicate stands in two "
        "(checked: 11 patients, 12 videos, 10 groups, 7 sets of equal frames, 2 verified duplicate pairs)"
    )
    assert sum(part.frames for part in proof.parts) == 72
    assert [part.label_groups for part in proof.parts] == [
        {label: proof.parts[n].label_groups[label] for label in proof.parts[n].label_groups} for n in range(2)
    ]
    assert proof.whole.share("a") + proof.whole.share("b") == 1
    assert not proof.leaks.any
    assert not result.leaking


def test_what_it_prints_fits_80_columns(standing: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(
        "video_id,split\n" + "".join(f"ward/clip{n}_mkv,{'train' if n % 2 else 'test'}\n" for n in range(11)) + f"{'long' * 40},test\n"
    )
    print_split(split(standing, folds=9, val=0.2, test=0.2))
    print_split(split(standing, published=tmp_path / "bad.csv"))
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "9 folds of 10 groups" in out
    assert "fewer than the 9 folds" in out
    assert "1 unmatched" in out


REFUSALS = [
    ({"folds": 11}, r"has 9 independent groups \(of 10, whose clips share frames\), too few for 11 folds"),
    ({"folds": 1}, "leaves nothing to train on"),
    ({"folds": -1}, "greater than or equal to 0"),
    ({"val": 0.6, "test": 0.5}, "leave something for train"),
    ({"val": 1.5}, "less than 1"),
    ({"apply": True}, "go with --published"),
    ({"published": "gone.csv"}, "no such file or folder"),
    ({"published": "gone.csv", "folds": 3}, "does not go with --folds"),
    ({"published": "gone.csv", "rest": "train"}, "add --apply"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSALS, ids=str)
def test_what_cannot_be_made_is_refused_in_one_line_and_nothing_changes(
    arguments: dict[str, Any], words: str, standing: Path, tmp_path: Path
) -> None:
    before = tree_bytes(standing)
    with pytest.raises(UserError, match=words) as told:
        split(standing, **arguments)
    assert "\n" not in str(told.value)
    assert tree_bytes(standing) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_of_an_older_usdata_or_without_a_recipe_is_refused(standing: Path, tmp_path: Path) -> None:
    about = json.loads((standing / "dataset.json").read_text())
    del about["steps_digest"]
    manifest.write_about(standing, about)
    with pytest.raises(UserError, match="older usdata"):
        split(standing)
    with pytest.raises(UserError, match="recipe that this usdata does not know"):
        split(Planted().write(tmp_path / "planted"))
    with pytest.raises(UserError, match="no such data set"):
        split(tmp_path / "gone")


def test_killed_at_any_moment_a_whole_set_stands(standing: Path, tmp_path: Path) -> None:
    """Killed after each step of the writing in turn: the old set or the new one stands, and the next split ends as if nothing had been."""
    old = tree_bytes(standing)
    reference = Path(shutil.copytree(standing, tmp_path / "reference"))
    split(reference, folds=2)
    new = tree_bytes(reference)
    program = """
import json, os, signal, sys, traceback
from usdata.building import staging
from usdata import successor as writing
from usdata.splitting import split
steps = 0
def counting(function):
    def wrapped(*arguments, **keywords):
        global steps
        if steps == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return function(*arguments, **keywords)
    return wrapped
for module, name in [(writing.manifest, "write_table"), (writing.manifest, "write_about"), (writing, "_link"), (writing, "write_json"),
                     (writing, "put_in_place"), (staging, "_exchange"), (writing.shutil, "rmtree"), (writing.os, "sync")]:
    setattr(module, name, counting(getattr(module, name)))
# Who dies is a fork of one process that has imported everything and started nothing, so that a kill costs no second start.
for line in sys.stdin:
    moment, folder = json.loads(line)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            split(folder, folds=2)
            print(json.dumps(steps), flush=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""
    folder = tmp_path / "victim"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def split_and_die(moment: int) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([moment, str(folder)]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        shutil.copytree(standing, folder)
        steps = split_and_die(10**6)
        assert int(process.stdout.readline()) == 0
        assert tree_bytes(folder) == new
        shutil.rmtree(folder)
        for moment in [0, 1, 3, 5, 6, steps // 2, *range(steps - 7, steps)]:
            shutil.copytree(standing, folder)
            assert split_and_die(moment) == -signal.SIGKILL
            assert tree_bytes(folder) in (old, new)
            split(folder, folds=2)
            assert tree_bytes(folder) == new
            assert sorted(path.name for path in tmp_path.iterdir()) == ["reference", "set", "victim"]
            shutil.rmtree(folder)
        process.stdin.close()


def test_a_running_build_is_not_disturbed_and_its_finished_clips_stay(standing: Path) -> None:
    building = standing.parent / ".set.building"
    building.mkdir()
    (building / "finished").touch()
    split(standing, folds=2)
    assert (building / "finished").is_file()


def published(folder: Path, text: str, name: str = "official.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def clean_table(built: Path, *, without: tuple[str, ...] = ()) -> str:
    """A published split that keeps all together that belongs together."""
    videos = usdata.load(built).videos
    part = {"ward/patient:p0": "test", "ward/patient:p1": "VAL"}
    rows = [
        f"{row.path},{part.get(str(row.group_id), 'train')}"
        for row in videos[videos.status == "ok"].itertuples()
        if row.path not in without
    ]
    return "\n".join(["file_name,subset", *rows]) + "\n"


def test_a_published_split_that_holds_is_applied_and_a_build_does_not_undo_it(raw: Path, standing: Path, tmp_path: Path) -> None:
    table = published(tmp_path, clean_table(standing))
    before = tree_bytes(standing)
    report = split(standing, published=table)
    assert not report.leaking
    assert not report.written
    assert tree_bytes(standing) == before
    applied = split(standing, published=table, apply=True)
    opened = usdata.load(standing)
    parts = opened.frames.groupby("video_id").split.unique()
    assert (list(parts["ward/copy_mkv"]), list(parts["ward/clip1_mkv"])) == (["test"], ["val"])
    origin = opened.about["split_origin"]
    assert (origin["kind"], origin["name"], set(origin["leaks"].values())) == ("published", "official.csv", {0})
    assert len(origin["sha256"]) == 64
    assert applied.digest == opened.digest == manifest.tables_digest(standing)
    assert not split(standing, published=table, apply=True).written

    again = build(make_recipe(), raw=raw, out=standing, workers=1)
    assert again.unchanged
    assert again.notes == ["it keeps the published split of 'official.csv'"]
    with pytest.raises(UserError, match="another recipe"):
        build(make_recipe(folds={"count": 2}), raw=raw, out=standing, workers=1)
    more = shutil.copytree(raw, tmp_path / "raw")
    (Path(more) / "notes.txt").write_text("new")
    with pytest.raises(UserError, match=r"holds the published split of 'official.csv', which this build would undo"):
        build(make_recipe(), raw=more, out=standing, workers=1)
    (tmp_path / "answers.csv").write_text("video_id,answer,reviewer,date,geometry\n")
    with pytest.raises(UserError, match="holds the published split"):
        take_answers(standing, tmp_path / "answers.csv", raw=raw)
    replaced = build(make_recipe(), raw=raw, out=standing, workers=1, overwrite=True)
    assert replaced.unchanged  # the same recipe and bytes: nothing to overwrite
    replaced = build(make_recipe(folds={"count": 2}), raw=raw, out=standing, workers=1, overwrite=True)
    assert "the published split of 'official.csv' is gone: apply it again" in replaced.notes[1]
    assert "split_origin" not in usdata.load(standing).about


def test_making_folds_keeps_a_published_split_and_making_all_replaces_it(built: Path, standing: Path, tmp_path: Path) -> None:
    split(standing, published=published(tmp_path, clean_table(standing)), apply=True)
    kept = usdata.load(standing).frames.split.tolist()
    result = split(standing, folds=2)
    assert usdata.load(standing).frames.split.tolist() == kept
    assert "the published split of 'official.csv' stays" in result.notes
    result = split(standing, folds=3, val=0, test=0)
    assert "the published split of 'official.csv' was replaced" in result.notes
    assert tree_bytes(standing) == tree_bytes(built)


def test_a_split_made_by_frame_is_reported_refused_and_allowed_on_request(standing: Path, tmp_path: Path) -> None:
    frames = usdata.load(standing).frames
    rows = [{"image": path, "set": "test" if n % 5 == 0 else "train"} for n, path in enumerate(frames.path)]
    table = published(tmp_path, json.dumps(rows), "frames.json")
    report = split(standing, published=table)
    assert report.leaks is not None
    torn = frames.assign(part=[row["set"] for row in rows]).groupby("duplicate_group").part.nunique().gt(1).sum()
    assert torn == 4
    assert report.leaks.counts == {"patients": 11, "videos": 12, "groups": 10, "equal_frames": 4, "duplicate_pairs": 2}
    assert report.published is not None
    assert report.published.matched == {"exact": 72, "stem": 0, "frame": 0}
    with pytest.raises(
        UserError, match="in two parts stand 11 patients, 12 videos, 10 groups, 4 sets of equal frames, 2 verified duplicate pairs"
    ):
        split(standing, published=table, apply=True)
    split(standing, published=table, apply=True, allow_leaks=True)
    opened = usdata.load(standing)
    assert opened.about["split_origin"]["leaks"] == report.leaks.counts
    assert opened.frames.split.tolist() == [row["set"] for row in rows]
    assert prove(opened, "split").leaks.counts == report.leaks.counts
    found = {finding.id: finding for finding in usdata.audit(standing).findings}
    for name in ("leakage-groups", "leakage-videos", "leakage-duplicates"):
        assert found[name].level == "error"
    assert run_here("usdata", "audit", standing, "--fail-on", "leakage").returncode == 3
    result = run_here("usdata", "split", standing, "--published", table, "--fail", "--json")
    assert result.returncode == 3
    assert json.loads(result.stdout)["leaks"]["checked"]["videos"] == 12


def test_frames_that_a_published_split_does_not_name_need_a_word(standing: Path, tmp_path: Path) -> None:
    table = published(tmp_path, clean_table(standing, without=("clip4.mkv", "clip5.mkv")))
    with pytest.raises(UserError, match=r"gives no part to 12 of 72 frames \(2 clips\); say where they go: --rest train"):
        split(standing, published=table, apply=True)
    with pytest.raises(UserError, match="did you mean 'train'"):
        split(standing, published=table, apply=True, rest="trian")
    split(standing, published=table, apply=True, rest="train")
    assert usdata.load(standing).about["split_origin"]["rest"] == "train"
    # The rest counts: clip 9 and clip 3 share a frame.
    table = published(tmp_path, clean_table(standing, without=("clip9.mkv",)))
    with pytest.raises(UserError, match="in two parts stand 1 set of equal frames, 1 verified duplicate pair"):
        split(standing, published=table, apply=True, rest="test")


def test_published_folds_in_folders_as_pocus_has_them(standing: Path, tmp_path: Path) -> None:
    """Stills of other frames than ours: a clip goes where all its stills stand; a clip in two folds leaks, though no frame of ours does."""
    for index in range(11):
        for number in (1, 777):
            place = tmp_path / "cross_validation" / f"split{index % 3 if index != 9 else 0}" / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"clip{index}.mkv_frame{number}.jpg").touch()
    (tmp_path / "cross_validation" / "split0" / "a" / "copy_frame3.jpg").touch()
    (tmp_path / "cross_validation" / "README").touch()
    tree = tmp_path / "cross_validation"
    report = split(standing, published=tree)
    assert report.leaks is not None
    assert report.published is not None
    assert (report.published.source.column, report.published.matched["frame"]) == ("fold", 23)
    assert report.published.with_their_clip == 60
    assert report.notes == ["not read, for they name no part: README"]
    assert report.leaks.counts["videos"] == 0
    assert [leak.name for leak in report.leaks.found["groups"]] == ["ward/patient:p8"]
    split(standing, published=tree, apply=True, allow_leaks=True)
    opened = usdata.load(standing)
    assert opened.about["fold_origin"]["name"] == "cross_validation"
    assert set(opened.frames.split) == {"train"}
    folds = opened.frames.groupby("video_id").fold.unique()
    assert {video: list(fold) for video, fold in folds.items()}["ward/clip4_mkv"] == [1]
    (tree / "split1" / "a" / "clip0_frame888.png").touch()
    again = split(standing, published=tree)
    assert again.leaks is not None
    assert [str(leak) for leak in again.leaks.found["videos"]] == ["ward/clip0_mkv (0, 1)"]
    assert again.published is not None
    assert (again.published.undecided, again.published.unplaced) == (5, 5)


def test_folds_may_leave_the_rest_in_none(standing: Path, tmp_path: Path) -> None:
    table = published(tmp_path, "name,fold\nclip1,1\nclip2,2\n")
    result = split(standing, published=table, apply=True, rest="none")
    assert result.notes[0] == "its folds 1 to 2 are 0 to 1 here"
    assert usdata.load(standing).frames.fold.isna().sum() == 60
    assert [part.name for part in result.proofs[0].parts] == ["0", "1", "none"]


def test_duplicate_pairs_of_a_planted_set_are_proved_and_found(tmp_path: Path) -> None:
    planted = Planted()
    planted.duplicates = [duplicate("clinic/v00", "clinic/v04"), duplicate("clinic/v00", "clinic/v01")]
    proof = prove(usdata.load(planted.write(tmp_path / "set")), "fold")
    assert [str(leak) for leak in proof.leaks.found["duplicate_pairs"]] == ["clinic/v00 = clinic/v04 (0, 1)"]
    assert proof.leaks.counts == {"patients": 0, "videos": 0, "groups": 0, "equal_frames": 0, "duplicate_pairs": 1}
    assert "leak; in two stand 1 verified duplicate pair (checked: " in proof.statement
