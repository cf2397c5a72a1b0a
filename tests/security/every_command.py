"""Run as a program: every command of both tools but `usdata pull`, small, in this one process. Prints those that did not end with 0."""

from __future__ import annotations

import contextlib
import io
import pickle
import shutil
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np

from tests.usdata.clips import speckle_frames, write_video

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_RUN = {"usdata pull"}  # what may use the network
SMALL = ["--set", "image_size=16", "--set", "batch_size=2", "--set", "device=cpu", "--set", "labels.weight=0"]

FEW = ["--image-size", "32", "--epochs", "1", "--folds", "2"]


def lines(folder: Path) -> list[list[str]]:
    """Each command line, in an order in which each finds what it needs."""
    raw, data, run, evaluation = (str(folder / name) for name in ("raw", "set", "run", "evaluation"))
    exports = [["usdata", "export", data, "--to", to, "--out", f"{folder}/{to}"] for to in ("folders", "huggingface", "webdataset", "coco")]
    exports += [["usdata", "export", data, "--to", to, "--out", f"{folder}/{to}"] for to in ("croissant", "manifest")]
    return [
        ["usdata", "phantom", f"{folder}/phantom", "--videos", "1"],
        ["usdata", "catalog"],
        ["usdata", "doctor"],
        ["usdata", "scan", raw, "--workers", "1", "--write-recipe", f"{folder}/recipe.yaml"],
        ["usdata", "build", f"{folder}/labelled.yaml", "--raw", raw, "--out", data, "--workers", "1"],
        ["usdata", "split", data, "--folds", "2"],
        ["usdata", "audit", data],
        ["usdata", "validate", data, "--deep", "--workers", "1"],
        ["usdata", "view", data, "--out", f"{folder}/view.png"],
        ["usdata", "review", data, "--raw", raw, "--all", "--out", f"{folder}/review.html"],
        ["usdata", "overlap", data, "--workers", "1"],
        ["usdata", "rebuild", data, "--raw", raw, "--out", f"{folder}/again", "--workers", "1"],
        ["usdata", "compare", data, f"{folder}/again"],
        ["usdata", "migrate", f"{folder}/old"],
        ["usdata", "import-folds", f"{folder}/folds", "--out", f"{folder}/imported", "--workers", "1"],
        *exports,
        ["uscl", "doctor"],
        ["uscl", "recipes"],
        ["uscl", "pretrain", data, "--out", run, "--set", "epochs=1", "--set", "probe.every_epochs=0", *SMALL],
        ["uscl", "runs", str(folder)],
        ["uscl", "bench", "--seconds", "0.01", *SMALL],
        ["uscl", "evaluate", "linear", data, "--weights", "random", "--out", evaluation, "--image-size", "32"],
        ["uscl", "segment", data, "--weights", "random", "--masks", f"{folder}/masks", "--out", f"{folder}/segmentation", *FEW],
        ["uscl", "report", evaluation, "--out", f"{folder}/report"],
        ["uscl", "embed", data, "--weights", run, "--out", f"{folder}/features.parquet"],
        ["uscl", "fit", data, "--weights", run, "--out", f"{folder}/model"],
        ["uscl", "predict", data, "--model", f"{folder}/model", "--out", f"{folder}/predictions"],
        ["uscl", "validate", data, "--model", f"{folder}/model", "--out", f"{folder}/validation", "--allow-overlap", "model"],
        ["uscl", "export", run, "--format", "timm", "--out", f"{folder}/timm"],
    ]


def prepare(folder: Path) -> None:
    """Raw clips with labels, a set of an older schema, and folds as pickles."""
    for number in range(4):
        write_video(folder / "raw" / f"{'ab'[number % 2]}_{number}.mp4", speckle_frames(8, seed=number))
    (folder / "raw" / "table.csv").write_text(
        "path,patient,label\n" + "".join(f"{'ab'[n % 2]}_{n}.mp4,p{n},{'ab'[n % 2]}\n" for n in range(4))
    )
    (folder / "labelled.yaml").write_text(
        "name: small\nmodes: null\nsources:\n- {name: s, table: table.csv, patient_ids: public, "
        "columns: {path: path, patient: patient, label: label}}\n"
    )
    shutil.copytree(REPOSITORY / "tests" / "data" / "schema-4", folder / "old")
    (folder / "folds").mkdir()
    images = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2] * 2)
    for fold in range(2):
        held = np.arange(6) // 3 == fold
        (folder / "folds" / f"covid_data{fold + 1}.pkl").write_bytes(
            pickle.dumps((images[~held], labels[~held], images[held], labels[held]), 4)
        )


def draw_masks(folder: Path) -> None:
    """A square in each frame of the set."""
    for image in (folder / "set" / "images").rglob("*.png"):
        mask = np.zeros(cv2.imread(str(image)).shape[:2], np.uint8)
        mask[:20, :20] = 1
        place = folder / "masks" / image.relative_to(folder / "set")
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), mask)


def main(folder: Path) -> None:
    prepare(folder)
    for line in lines(folder):
        if line[1] == "segment":
            draw_masks(folder)
        app, said, code = import_module(f"{line[0]}.cli").app, io.StringIO(), 0
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                app(line[1:])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        if code != 0:
            print(f"{' '.join(line[:3])} ended with {code}: {said.getvalue()[-2000:]}", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
