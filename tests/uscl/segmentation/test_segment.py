"""The whole way on small sets whose truth is planted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.uscl.evaluation.texture_set import video_name
from tests.uscl.segmentation.mask_set import masks_of, write_image, write_mask_set
from uscl.backbones import seeded_backbone
from uscl.cli import app
from uscl.segmentation import PARTS, SegmentResult, segment
from uscl.segmentation.instances import Instance, encoded
from uscl.segmentation.report import print_segmentation
from usdata.building import build
from usdata.errors import UserError
from usdata.manifest import open_dataset
from usdata.phantoms import phantom

SIZE = 32


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_mask_set(tmp_path_factory.mktemp("sets") / "discs", videos=8, frames_per_video=3)
    (masks_of(folder) / "classes.json").write_text(json.dumps({"1": "disc", "2": "square <b>"}))
    (masks_of(folder) / video_name(7) / "2.png").unlink()
    return folder


@pytest.fixture(scope="module")
def result(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> SegmentResult:
    out = tmp_path_factory.mktemp("results") / "unet"
    settings = {"image_size": SIZE, "epochs": 10, "folds": 2, "save_masks": True}
    return segment(discs, weights=["random"], masks=masks_of(discs), out=out, **settings)  # type: ignore[arg-type]


def test_planted_shapes_are_learnt_on_held_out_groups(result: SegmentResult) -> None:
    for entry in result.summary["weights"]:
        assert entry["levels"]["frame"]["mean"]["dice_where_present"]["value"] > 0.8
        assert entry["levels"]["group"]["mean"]["dice"]["value"] > 0.8
        low, high = entry["levels"]["frame"]["mean"]["dice"]["interval"]
        assert low < entry["levels"]["frame"]["mean"]["dice"]["value"] < high
    assert result.summary["baseline"]["levels"]["frame"]["mean"]["dice_where_present"]["value"] < 0.6


def test_every_frame_with_a_mask_is_held_out_once(discs: Path, result: SegmentResult) -> None:
    data = result.summary["dataset"]
    assert (data["frames"], data["frames_without_mask"], data["videos"], data["groups"]) == (23, 1, 8, 8)
    assert [each["class"] for each in data["classes"]] == ["disc", "square <b>"]
    assert "1 frame has no mask and is left out." in result.summary["notes"]
    table = pd.read_parquet(result.out / "scores.parquet")
    assert len(table) == 23
    assert table["frame_id"].is_unique
    assert table.groupby("independent_group")["fold"].nunique().max() == 1
    parts = [part["test_groups"] for part in result.summary["folds"][0]["parts"]]
    assert not set(parts[0]) & set(parts[1])
    assert sorted(parts[0] + parts[1]) == sorted(open_dataset(discs).frames["group_id"].unique())


def test_written_masks_give_the_written_figures(discs: Path, result: SegmentResult) -> None:
    """Read back and counted pixel by pixel."""
    frames = open_dataset(discs).frames
    values: dict[int, list[float]] = {1: [], 2: []}
    for frame_id in frames["frame_id"].iloc[:-1]:
        truth = cv2.imread(str(masks_of(discs) / f"{frame_id}.png"), cv2.IMREAD_UNCHANGED)
        found = cv2.imread(str(result.out / "masks" / "random" / f"{frame_id}.png"), cv2.IMREAD_UNCHANGED)
        assert truth.shape == found.shape
        for value, told in values.items():
            if (truth == value).any():
                told.append(2 * ((truth == value) & (found == value)).sum() / ((truth == value).sum() + (found == value).sum()))
    entry = result.summary["weights"][0]["levels"]["frame"]
    for value, each in zip((1, 2), entry["classes"], strict=True):
        assert each["dice_where_present"]["value"] == pytest.approx(np.mean(values[value]))
        assert each["dice_where_present"]["items"] == len(values[value])
    assert entry["mean"]["dice_where_present"]["value"] == pytest.approx(np.mean([np.mean(told) for told in values.values()]))


def test_the_page_is_whole_and_the_terminal_fits(result: SegmentResult) -> None:
    assert sorted(path.name for path in result.out.iterdir()) == sorted(PARTS)
    assert json.loads((result.out / "segmentation.json").read_text()) == json.loads(json.dumps(result.summary))
    page = (result.out / "report.html").read_text()
    assert page.index("On 8 independent groups held out in 2 folds") < page.index("data:image/jpeg")
    assert "square &lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert page.count("<figure>") == 12
    text = io.StringIO()
    print_segmentation(result.summary, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("position alone" in line for line in lines)
    assert any(line.strip().startswith("disc") for line in lines)


def test_equal_input_gives_equal_bytes_and_one_network_under_two_names_no_difference(discs: Path, tmp_path: Path) -> None:
    settings = {
        "weights": ["random", "resnet18:random"],
        "masks": masks_of(discs),
        "image_size": SIZE,
        "epochs": 1,
        "folds": 2,
        "head": "fpn",
        "frozen": True,
        "where": ["video_id=" + "|".join(video_name(number) for number in (0, 1, 3, 4))],
    }
    for name in ("one", "two"):
        found = segment(discs, out=tmp_path / name, **settings)  # type: ignore[arg-type]
    for name in ("segmentation.json", "scores.parquet", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert found.summary["reference"] == "random"
    assert found.summary["differences"]
    assert all(row["difference"] == 0 and not row["established"] for row in found.summary["differences"])
    with pytest.raises(UserError, match="exists already and is left as it is"):
        segment(discs, out=tmp_path / "one", **settings)  # type: ignore[arg-type]


def test_weights_that_have_seen_the_clips_are_refused(discs: Path, tmp_path: Path) -> None:
    path = tmp_path / "seen.safetensors"
    tensors = {name: value.contiguous() for name, value in seeded_backbone("resnet18", 5).state_dict().items()}
    save_file(tensors, path, metadata={"dataset_digest": open_dataset(discs).digest, "dataset_name": "discs"})
    settings = {"weights": [str(path)], "masks": masks_of(discs), "out": tmp_path / "out", "image_size": SIZE, "epochs": 1, "folds": 2}
    with pytest.raises(UserError, match=r"8 of 8 clips are not new to seen\.safetensors"):
        segment(discs, **settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no frame with a mask is left without the overlap"):
        segment(discs, without_overlap=True, **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    found = segment(discs, allow_overlap=["seen.safetensors"], frozen=True, **settings)  # type: ignore[arg-type]
    assert any("Figures of seen.safetensors are optimistic" in note for note in found.summary["notes"])


def test_instances_are_judged_by_average_precision(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way from instances to the page; the network itself is trained in test_instances."""
    from uscl.segmentation import held_out

    def untrained(*args: object, **kwargs: object) -> tuple[None, list[float]]:
        return None, [1.0]

    def right_boxes(model: None, labelled: object, rows: np.ndarray, **kwargs: object) -> object:
        for row in rows.tolist():
            mask = truth[row]
            yield row, mask, [Instance(0, encoded(mask == 1), 0.9)]

    opened = open_dataset(discs)
    truth = [cv2.imread(str(masks_of(discs) / f"{name}.png"), cv2.IMREAD_UNCHANGED) for name in opened.frames["frame_id"].iloc[:-1]]
    monkeypatch.setattr(held_out, "train_instances", untrained)
    monkeypatch.setattr(held_out, "predict_instances", right_boxes)
    out = tmp_path / "out"
    found = segment(discs, weights=["random"], masks=masks_of(discs), out=out, head="mask-rcnn", image_size=SIZE, epochs=1, folds=2)
    precision = found.summary["weights"][0]["average_precision"]
    # Discs are all found, though a square may cut one in two or three; squares are never found.
    assert precision["classes"][1]["ap"] == 0
    assert 0.5 < precision["classes"][0]["ap"] <= 1
    assert precision["ap"] == pytest.approx(precision["classes"][0]["ap"] / 2)
    assert "Average precision of instances" in (out / "report.html").read_text()
    monkeypatch.setattr(
        held_out, "predict_instances", lambda model, given, rows, **kwargs: ((row, 0 * truth[row], []) for row in rows.tolist())
    )
    found = segment(discs, weights=["random"], masks=masks_of(discs), out=tmp_path / "none", head="mask-rcnn", image_size=SIZE, folds=2)
    assert found.summary["weights"][0]["average_precision"]["ap"] == 0
    told = "With random weights no pixel of any held-out frame is taken for 'disc', 'square <b>': it was not learnt."
    assert told in found.summary["notes"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--head", "fpn", "--weights", "timm/vit_tiny_patch16_224:random"], "has maps of 1 size"),
        (["--head", "mask-rcnn", "--weights", "timm/convnext_atto:random"], "takes torchvision's ResNets"),
        (["--weights", "random", "--epochs", "0"], "--epochs 0: is too small"),
        (["--weights", "random", "--weights", "random"], "names the same twice"),
        (["--weights", "random", "--where", "video_id=none"], "leaves no frame"),
    ],
)
def test_mistakes_are_one_line(discs: Path, tmp_path: Path, options: list[str], said: str) -> None:
    asked = ["segment", str(discs), "--masks", str(masks_of(discs)), "--out", str(tmp_path / "out"), "--image-size", str(SIZE), *options]
    answer = CliRunner().invoke(app, asked)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_prints_json_for_machines(tmp_path: Path) -> None:
    folder = write_mask_set(tmp_path / "set", videos=4, frames_per_video=2)
    write_image(folder / "images" / "unused.png", np.zeros((4, 4), np.uint8))
    asked = ["segment", str(folder), "--weights", "random", "--masks", str(masks_of(folder)), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, [*asked, "--image-size", str(SIZE), "--epochs", "1", "--folds", "2", "--frozen", "--json"])
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)["settings"]["frozen"] is True


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_phantoms_tissues_are_learnt_on_held_out_groups(tmp_path: Path) -> None:
    """Wall, lung, liver and vessels of simulated patients never seen: a mean Dice of .90 (docs/results/segmentation.md)."""
    phantom(tmp_path / "raw", videos=100, masks=tmp_path / "masks")
    build("phantom", raw=tmp_path / "raw", out=tmp_path / "set", overrides=["sources.0.sampling.hz=1"])
    found = segment(tmp_path / "set", weights=["random"], masks=tmp_path / "masks", out=tmp_path / "out", image_size=96, folds=3)
    assert found.summary["weights"][0]["levels"]["frame"]["mean"]["dice_where_present"]["value"] >= 0.90
