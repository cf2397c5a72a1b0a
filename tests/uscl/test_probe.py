"""The probe: votes against scikit-learn, another implementation of ours and loops; frames by hand; nothing of a run changed by looking."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl.backbones import seeded_backbone
from uscl.config import load_config
from uscl.evaluation.probes import knn_probe
from uscl.frames import open_store
from uscl.models import normalise
from uscl.pairs import index_videos
from uscl.probe import ProbeFrames, backbone_features, choose_frames, neighbour_votes, probe
from uscl.sections import Probe
from uscl.train import pretrain
from usdata.files import sha256_file
from usdata.manifest import open_dataset

SMALL = [TINY_NETWORK, "image_size=32", "batch_size=4", "epochs=4", "device=cpu", "checkpoint.log_every_steps=1"]
SMALL += ["checkpoint.every_epochs=1"]
CPU = torch.device("cpu")


def drawn(count: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    group = generator.integers(groups, size=count)
    label = np.arange(groups)[group] % 3
    features = generator.normal(size=(count, 6)) + 0.7 * np.eye(6)[label]
    return features.astype(np.float32), label, group


@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_votes_are_those_of_scikit_learn_without_the_rows_group(k: int) -> None:
    features, labels, groups = drawn(90, 12, seed=k)
    votes = neighbour_votes(features, labels, groups, k)
    for group in np.unique(groups):
        own = groups == group
        neighbours = KNeighborsClassifier(
            n_neighbors=min(k, int((~own).sum())), metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        neighbours.fit(features[~own].astype(np.float64), labels[~own])
        expected = np.zeros((own.sum(), 3))
        expected[:, neighbours.classes_] = neighbours.predict_proba(features[own].astype(np.float64))
        np.testing.assert_allclose(votes[own], expected, atol=1e-9)
        np.testing.assert_allclose(
            votes[own], knn_probe(features[~own], labels[~own], features[own], class_count=3, neighbours=k), atol=1e-9
        )


def test_votes_of_more_rows_than_are_asked_for_at_once() -> None:
    features, labels, groups = drawn(1100, 40, seed=1)
    votes = neighbour_votes(features, labels, groups, 20)
    unit = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    for row in (0, 1023, 1024, 1099):
        others = np.flatnonzero(groups != groups[row])
        nearest = sorted(others, key=lambda other: -unit[row] @ unit[other])[:20]
        weights = np.exp(np.array([unit[row] @ unit[other] for other in nearest]) / 0.07)
        expected = np.bincount(labels[nearest], weights=weights, minlength=3) / weights.sum()
        np.testing.assert_allclose(votes[row], expected, atol=1e-9)


def test_which_frames_are_looked_at(tmp_path: Path) -> None:
    """Label a stands in two groups, b in two, c in one; the last video has none."""
    folder = write_set(
        tmp_path / "set",
        frames_per_video=(10, 1, 3, 4, 4, 4),
        labels=("a", "b", "a", "b", "c", None),
        groups=("p0", "p1", "p2", "p3", "p3", "p4"),
    )
    index = index_videos(open_dataset(folder))
    frames = choose_frames(index, Probe(frames_per_video=4), seed=0)
    assert frames is not None
    assert frames.videos.tolist() == [0] * 4 + [1] + [2] * 3 + [3] * 4
    # The middles of four equal parts of ten frames lie at 1.25, 3.75, 6.25 and 8.75.
    assert frames.rows.tolist() == [1, 3, 6, 8, 10, 11, 12, 13, 14, 15, 16, 17]
    assert frames.labels.tolist() == [0, 1, 0, 1]
    assert frames.groups.tolist() == index.groups[:4].tolist()
    assert "12 frames of 4 videos, 2 labels in 4 groups" in frames.describe()

    assert choose_frames(index, Probe(every_epochs=0), seed=0) is None
    assert choose_frames(index, Probe(every_epochs=None), seed=0) is None
    few = choose_frames(index, Probe(frames_per_video=1, max_frames=5), seed=0)
    assert few is not None
    assert few.labels.tolist() == [0, 1, 0, 1]
    # Three videos cannot hold two labels in two groups each, so no neighbour is asked, and any videos do.
    fewer = choose_frames(index, Probe(frames_per_video=2, max_frames=6), seed=0)
    assert fewer is not None
    assert (len(fewer.labels), int(fewer.videos[-1]) + 1) == (0, 3)
    assert "no two labels stand in two groups each" in fewer.describe()


def test_figures_of_the_probe(tmp_path: Path) -> None:
    """Eight videos of two labels in six groups, by loops and scikit-learn from features that torch computes by itself."""
    folder = write_set(
        tmp_path / "set", frames_per_video=(3,) * 8, labels=list("aabbbbab"), groups=["p0", "p0", "p1", "p2", "p3", "p3", "p4", "p5"]
    )
    data = open_dataset(folder)
    index, store = index_videos(data), open_store(data, size=32)
    settings = Probe(frames_per_video=2, k=3)
    frames = choose_frames(index, settings, seed=0)
    assert frames is not None
    backbone = seeded_backbone("resnet18", 3).train()
    found = probe(
        backbone, frames, lambda rows: torch.from_numpy(store.pixels[rows]), settings, image_size=32, device=CPU, precision="float32"
    )

    with torch.no_grad():
        features = copy.deepcopy(backbone).eval()(normalise(torch.from_numpy(store.pixels[frames.rows]))).numpy()
    groups = frames.groups[frames.videos]
    labels = frames.labels[frames.videos]
    predicted = []
    for video in range(8):
        rows = np.flatnonzero(frames.videos == video)
        others = groups != groups[rows[0]]
        shares = knn_probe(features[others], labels[others], features[rows], class_count=2, neighbours=3).mean(axis=0)
        predicted.append(int(shares.argmax()))
    assert found["knn_accuracy"] == np.mean(np.array(predicted) == frames.labels)
    assert found["knn_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(frames.labels, predicted))
    assert (found["knn_majority"], found["knn_chance"], found["knn_videos"], found["probe_frames"]) == (5 / 8, 1 / 2, 8, 16)
    singular = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    assert found["rankme"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


def test_perfect_features_name_every_video_and_equal_ones_none_but_the_majority() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    groups = np.arange(5)
    assert (neighbour_votes(np.eye(2, dtype=np.float32)[labels], labels, groups, 1).argmax(axis=1) == labels).all()
    equal = neighbour_votes(np.ones((5, 2), dtype=np.float32), labels, groups, 4)
    np.testing.assert_allclose(equal[0], [0.5, 0.5])
    np.testing.assert_allclose(equal[4], [0.75, 0.25])


def test_looking_leaves_the_backbone_and_the_generator_as_they_were() -> None:
    backbone = seeded_backbone("resnet18", 0).train()
    backbone.layer2.eval()
    backbone.conv1.weight.grad = torch.ones_like(backbone.conv1.weight)
    before, generator = copy.deepcopy(backbone.state_dict()), torch.get_rng_state()
    pixels = torch.randint(0, 256, (70, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = backbone_features(
        backbone, np.arange(70), lambda rows: pixels[torch.from_numpy(rows)], image_size=32, device=CPU, precision="float32"
    )
    assert features.shape == (70, 512)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert (backbone.training, backbone.layer1.training, backbone.layer2.training) == (True, True, False)
    assert bool((backbone.conv1.weight.grad == 1).all())

    def refuse(rows: np.ndarray) -> torch.Tensor:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        backbone_features(backbone, np.arange(3), refuse, image_size=32, device=CPU, precision="float32")
    assert backbone.training


def test_a_run_is_the_same_with_the_probe_on_or_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "set")
    pretrain(data, out=tmp_path / "on", overrides=[*SMALL, "probe.every_epochs=2", "probe.k=2"])
    said = capsys.readouterr().err
    assert "nearest neighbours and rank of the features of 16 frames of 4 videos, 2 labels in 4 groups" in said
    assert "(majority 50.0%)" in said
    pretrain(data, out=tmp_path / "off", overrides=[*SMALL, "probe.every_epochs=0"])
    assert "probe:" not in capsys.readouterr().err
    for name in ("model", "optimizer"):
        file = f"checkpoints/last/{name}.safetensors"
        assert sha256_file(tmp_path / "on" / file) == sha256_file(tmp_path / "off" / file)
    on, off = ([json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()] for run in ("on", "off"))
    assert [line["step"] for line in on if "knn_accuracy" in line] == [4, 8]
    assert {key for line in on for key in line} - {key for line in off for key in line} == {
        "rankme",
        "probe_frames",
        "knn_accuracy",
        "knn_balanced_accuracy",
        "knn_majority",
        "knn_chance",
        "knn_videos",
    }
    timed = {"views_per_s", "data_wait_share", "utilisation", "peak_memory_mb"}
    for probed, plain in zip(on, off, strict=True):
        assert {key: probed[key] for key in plain.keys() - timed} == {key: plain[key] for key in plain.keys() - timed}


def test_an_unlabelled_set_has_a_rank_and_no_neighbours(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", labels=[])
    result = pretrain(data, out=tmp_path / "run", overrides=[*SMALL, "epochs=1", "checkpoint.log_every_steps=100"])
    assert 1 <= result.metrics["rankme"] <= result.metrics["probe_frames"] == 24
    assert not any(key.startswith("knn") for key in result.metrics)
    assert load_config("uscl").probe.every_epochs == 10


def test_a_probe_of_no_labels_describes_itself() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert "rank of the features of 2 frames of 1 videos" in ProbeFrames(np.arange(2), np.zeros(2, dtype=np.int64), none, none).describe()
