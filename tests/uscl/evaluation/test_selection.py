"""Which frames are evaluated: filters on both tables, classes, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.uscl.evaluation.texture_set import video_name, write_texture_set
from uscl.evaluation.selection import select_frames
from usdata.errors import UserError
from usdata.manifest import DataSet, open_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = write_texture_set(
        tmp_path_factory.mktemp("set"),
        textures=("across", "down", "blotches", "across", "down", "blotches", "across", "down"),
        labels=("across", "down", "blotches", "across", "down", "blotches", None, "down"),
        folds=(0, 1, 0, 1, 0, 1, None, 0),
        probes=("convex", "linear", "convex", "linear", "convex", "convex", "convex", "phased array"),
        frames_per_video=2,
    )
    return open_dataset(folder)


@pytest.mark.parametrize(
    ("where", "videos"),
    [
        ([], [0, 1, 2, 3, 4, 5, 7]),
        (["probe=convex"], [0, 2, 4, 5]),
        (["probe=convex|linear"], [0, 1, 2, 3, 4, 5]),
        (["probe!=convex|linear", "label!=x"], []),
        (["probe!=convex"], [1, 3, 7]),
        (["probe = phased array | convex", "fold!=0"], []),
        (["manufacturer=second"], [4, 5, 7]),
        (["manufacturer=first", "probe=linear"], [1, 3]),
        (["fold=1"], [1, 3, 5]),
        (["frame_index=0"], [0, 1, 2, 3, 4, 5, 7]),
        (["patient_id="], [0, 1, 2, 3, 4, 5, 7]),
        (["patient_id!="], []),
        (["labels=texture=down"], []),
        (["labels!=texture=down"], [0, 2, 3, 5]),
    ],
)
def test_filters(dataset: DataSet, where: list[str], videos: list[int]) -> None:
    if not videos:
        with pytest.raises(UserError):
            select_frames(dataset, where=where)
        return
    frames, filtered = select_frames(dataset, where=where)
    assert frames["video_id"].unique().tolist() == [video_name(video) for video in videos]
    assert len(frames) == len(videos) * (1 if where == ["frame_index=0"] else 2)
    assert filtered == (where not in ([], ["patient_id="]))
    assert dataset.frames["frame_id"].iloc[frames["row"]].tolist() == frames["frame_id"].tolist(), "rows index the whole manifest"


def test_classes(dataset: DataSet) -> None:
    frames, filtered = select_frames(dataset, classes=["across", "blotches"])
    assert set(frames["label"]) == {"across", "blotches"}
    assert filtered


@pytest.mark.parametrize(
    ("where", "classes", "message"),
    [
        (["prob=convex"], None, "no column 'prob'; did you mean 'probe'"),
        (["probe"], None, "is no filter; write column=value"),
        (["probe=convx"], None, "leaves no labelled frame; 'probe' holds: convex, linear, phased array"),
        (["frame_id=made/clip00/9"], None, "leaves no labelled frame; did you mean 'made/clip0"),
        ([], ["acros"], "did you mean 'across'"),
        ([], ["across"], "only class 'across' is left"),
        (["label=down"], None, "only class 'down' is left"),
    ],
)
def test_errors_name_what_is_near(dataset: DataSet, where: list[str], classes: list[str] | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        select_frames(dataset, where=where, classes=classes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_set_without_labels_is_refused(tmp_path: Path) -> None:
    folder = write_texture_set(tmp_path / "set", textures=("across",) * 2, labels=(None, None), frames_per_video=1)
    with pytest.raises(UserError, match="no frame of this data set has a label"):
        select_frames(open_dataset(folder))
