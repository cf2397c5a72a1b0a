"""The published folds as a data set: every picture comes back, groups are the planted recordings, and what the folds cut is told."""

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import usdata
from tests.usdata.duplicates.test_recordings import recording
from uscl.evaluation import evaluate
from usdata.cli import app
from usdata.errors import UserError
from usdata.fold_pickles import CLASSES, _unpack, import_folds
from usdata.fold_pickles.known_clips import joined

RECORDINGS, EACH, FOLDS = 9, 4, 3


def planted() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """(n, 3, H, W) pictures, labels, recordings; a label holds for a recording."""
    frames = [(seed, frame[:96, :96]) for seed in range(RECORDINGS) for frame in recording(seed + 20, EACH)]
    images = np.stack([np.repeat(frame[None], 3, axis=0) for _, frame in frames])
    of = np.array([seed for seed, _ in frames])
    return images, of % 3, of


def write_folds(folder: Path, fold: NDArray[np.int64]) -> list[Path]:
    images, labels, _ = planted()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(FOLDS):
        path = folder / f"covid_data{number + 9}.pkl"  # 9, 10, 11: sorted by value
        held = fold == number
        path.write_bytes(pickle.dumps((images[~held], labels[~held], images[held], labels[held]), 4))
        paths.append(path)
    return paths


def by_frame() -> NDArray[np.int64]:
    return np.arange(RECORDINGS * EACH) % FOLDS


def by_recording() -> NDArray[np.int64]:
    return planted()[2] // 3 % FOLDS


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    write_folds(folder / "pickles", by_frame())
    result = import_folds([folder / "pickles"], folder / "set", raw=folder / "raw", workers=1)
    assert result.files == ["covid_data9.pkl", "covid_data10.pkl", "covid_data11.pkl"]
    assert (result.recordings, result.groups, result.cut, result.cut_frames, result.known) == (9, 9, 9, 36, None)
    assert not result.as_published
    assert result.notes == []
    assert result.frames == [12, 12, 12]
    assert result.classes == dict.fromkeys(CLASSES, 12)
    assert sorted(path.name for path in folder.iterdir()) == ["pickles", "raw", "set"]
    return folder


def test_pictures_labels_and_folds_are_those_of_the_pickles(imported: Path) -> None:
    opened = usdata.load(imported / "set")
    images, labels, of = planted()
    fold = by_frame()
    assert opened.classes == list(CLASSES)
    stored = opened.images(slice(0, len(opened.frames)))
    groups: dict[str, set[int]] = {}
    for row, picture in zip(opened.frames.itertuples(), stored, strict=True):
        number, place = (int(part) for part in str(row.video_id).removeprefix("pocus-folds/fold-").removesuffix("_png").split("__"))
        which = np.flatnonzero(fold == number)[place - 1]
        assert np.array_equal(picture, images[which, 0])
        assert row.label == CLASSES[labels[which]]
        assert row.fold == number
        groups.setdefault(str(row.group_id), set()).add(int(of[which]))
    assert len(opened.frames) == len(images)
    assert sorted(map(sorted, groups.values())) == [[number] for number in range(RECORDINGS)]
    assert opened.about["fold_origin"]["leaks"]["groups"] == 9
    assert "cut 9 of 9 groups" in opened.about["description"]


def test_the_evaluator_refuses_the_folds_and_makes_others(imported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"refused, because these stand both in training and in test: group_id .* and 6 more"):
        evaluate("knn", imported / "set", weights=["random"], out=tmp_path / "own", image_size=32)
    summary = evaluate("knn", imported / "set", weights=["random"], out=tmp_path / "made", image_size=32, folds=3).summary
    assert summary["weights"][0]["name"] == "random"


def test_what_is_kept_builds_the_same_set_again(imported: Path, tmp_path: Path) -> None:
    usdata.build(imported / "raw" / "recipe.yaml", raw=imported / "raw", out=tmp_path / "set", workers=1)
    usdata.split(tmp_path / "set", published=imported / "raw" / "folds.csv", apply=True, allow_leaks=True)
    assert usdata.load(tmp_path / "set").digest == usdata.load(imported / "set").digest


def test_the_order_of_arguments_decides_nothing_and_whole_folds_are_accepted(tmp_path: Path) -> None:
    paths = write_folds(tmp_path / "pickles", by_recording())
    result = import_folds(paths[::-1], tmp_path / "set", workers=1)
    assert (result.files, result.cut, result.near_copies) == ([path.name for path in paths], 0, 0)
    summary = evaluate("knn", tmp_path / "set", weights=["random"], out=tmp_path / "out", image_size=32).summary
    assert {fold["origin"] for fold in summary["folds"]} == {"data set"}


def test_known_clips_join_what_pictures_cannot(imported: Path, tmp_path: Path) -> None:
    """A set of the clips, two of them one patient's, gives the frames their groups; it holds every second frame, a little larger."""
    clips = tmp_path / "clips"
    lines = ["path,label,patient"]
    for seed in range(RECORDINGS):
        for number, frame in enumerate(recording(seed + 20, EACH)[::2]):
            place = clips / f"clip{seed}" / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), cv2.resize(frame[:96, :96], (120, 110)))
        lines.append(f"clip{seed},{CLASSES[seed % 3]},p{seed if seed != 3 else 0}")
    (clips / "labels.csv").write_text("\n".join(lines) + "\n")
    source = {"name": "public", "table": "labels.csv", "patient_ids": "public", "sampling": {"rule": "all"}}
    source["columns"] = {name: name for name in ("path", "label", "patient")}
    recipe = usdata.building.Recipe.model_validate({"name": "public", "sources": [source], "folds": {"count": 0}, "modes": None})
    usdata.build(recipe, raw=clips, out=tmp_path / "known", workers=1)
    result = import_folds([imported / "pickles"], tmp_path / "set", clips=tmp_path / "known", workers=1)
    assert result.recordings == 9
    assert result.groups == 8
    assert result.known is not None
    assert result.known >= RECORDINGS * EACH / 2
    frames = usdata.load(tmp_path / "set").videos
    told = pd.Series(
        {row.video_id: next((each for each in row.labels if each.startswith("known_clip=")), "") for row in frames.itertuples()}
    )
    of = frames.set_index("video_id")["group_id"]
    assert len(of[told == "known_clip=public/clip0"].unique()) == 1
    assert set(of[told == "known_clip=public/clip0"]) == set(of[told == "known_clip=public/clip3"])


def test_recordings_join_through_groups() -> None:
    assert joined([0, 0, 1, 2, 3, 4], ["a", None, "b", "a", None, "b"]) == [0, 0, 1, 0, 3, 1]


def test_a_training_part_of_other_pictures_is_told(tmp_path: Path) -> None:
    paths = write_folds(tmp_path / "pickles", by_frame())
    images, labels, _ = planted()
    held = by_frame() == 0
    other = np.concatenate([images[~held][2:], 255 - images[:1]])
    paths[0].write_bytes(pickle.dumps((other, labels[: len(other)], images[held], labels[held]), 4))
    told = "covid_data9.pkl trains on 23 pictures: 2 that other folds hold out are not among them, and 1 are in no other fold"
    assert _unpack(paths, tmp_path / "raw", CLASSES).notes == [f"{told}; the set holds what is held out alone"]


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["import-folds", *map(str, words)])
    return done.exit_code, done.output


def test_mistakes_are_one_line_and_leave_nothing(imported: Path, tmp_path: Path) -> None:
    paths = sorted((imported / "pickles").iterdir())
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    shutil.copy(paths[0], tmp_path / "one.pkl")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    before = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "x"
    for words, reason in (
        ([tmp_path / "gone", "--out", out], "no such file or folder"),
        ([tmp_path / "empty", "--out", out], "holds no pickle"),
        ([tmp_path / "one.pkl", "--out", out], "is one fold alone"),
        ([tmp_path / "one.pkl", tmp_path / "one.pkl", "--out", out], "is one fold alone"),
        ([paths[0], tmp_path / "bad.pkl", "--out", out], "'os.system'"),
        ([*paths, "--out", out, "--classes", "a,b"], "holds the label 2, and the classes are a, b"),
        ([*paths, "--out", out, "--classes", "a"], "give two names or more"),
        ([*paths, "--out", out, "--clips", tmp_path / "empty"], "is not a data set"),
        ([*paths, "--out", tmp_path / "thesis", "--overwrite"], "is not empty and is not a data set"),
        ([*paths, "--out", imported / "set"], "exists already"),
        ([*paths, "--out", out, "--raw", tmp_path / "thesis"], "is not empty; name another --raw"),
        ([*paths, "--out", out, "--raw", out / "raw"], "lie in one another"),
    ):
        code, said = run(*words)
        assert code == 2, (words, said)
        lines = [line for line in said.splitlines() if not line.startswith("reading")]
        assert len(lines) == 1, said
        assert reason in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before
