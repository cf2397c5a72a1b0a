"""What the pages' commands stand on: simulated clips, data sets, runs and recipes under the names that the pages use."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import REPOSITORY

# Appended where a page trains, so that a page takes seconds and not hours. Nothing else of a command is changed.
SMALL = " --set epochs=1 --set image_size=32 --set batch_size=4 --set probe.every_epochs=0 --set device=cpu"
SMALL_SEGMENTATION = " --epochs 1 --image-size 32 --folds 2"
CLIPS = ("clips", "RAW", "raw")
SETS = ("set", "SET", "LABELLED", "pretraining-set", "large-set", "rebuilt", "demo/set")
RECIPES = ("mine.yaml", "my-recipe.yaml", "recipe.yaml", "ward.yaml")


class Kit:
    """A folder with one of each, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        for name in ("usdata", "uscl", "python", "python3", "torchrun"):
            command = {"python": "", "python3": "", "torchrun": "-m torch.distributed.run"}.get(name, f"-m {name}")
            script = self.programs / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
            script.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self._run("usdata phantom raw --videos 40 --seed 3 --masks masks")
        self._run("usdata phantom other-raw --videos 20 --seed 4")
        self._run("usdata build phantom --raw raw --out set --set split.test=0.5 --set folds.count=2")
        self._run("usdata build phantom --raw other-raw --out other-set --set folds.count=2 --set sources.0.name=elsewhere")
        # Of neither the pages' set nor the run.
        self._run("usdata phantom third-raw --videos 20 --seed 5")
        self._run("usdata build phantom --raw third-raw --out third-set --set folds.count=2 --set sources.0.name=third")
        self._run("uscl pretrain other-set --out run --recipe simclr" + SMALL)
        self._run("uscl pretrain set --out seen --recipe simclr --set 'pairs.splits=[train,test]'" + SMALL)
        shutil.copytree(folder / "set", folder / "set-2")
        self._run("usdata split set-2 --folds 2 --seed 5")
        self._run("uscl evaluate knn set --weights random --weights run --out evaluation --folds 2")
        shutil.copy(REPOSITORY / "manifests" / "phantom.yaml", folder / "recipe.yaml")
        self._clips_of_a_ward()
        self._published_split()

    def place(self, name: str, at: Path) -> bool:
        """Put what the pages call `name` there; False where the kit has no such thing."""
        table = {
            **dict.fromkeys(CLIPS, "raw"),
            **dict.fromkeys(SETS, "set"),
            **dict.fromkeys(RECIPES, "recipe.yaml"),
            **dict.fromkeys(("RUN", "run", "WEIGHTS"), "run"),
            **dict.fromkeys(("test-set", "other-set"), "other-set"),
            **{
                "OTHER": "third-set",
                "set-2": "set-2",
                "SEEN": "seen",
                "EVAL": "evaluation",
                "FileList.csv": "FileList.csv",
                "MASKS": "masks",
            },
        }
        if name not in table:
            return False
        source = self.folder / table[name]
        at.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, at)
        else:
            shutil.copy(source, at)
        return True

    def _run(self, command: str) -> None:
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def _clips_of_a_ward(self) -> None:
        """Clips where the guides' recipes look for them, beside the simulated ones."""
        clips = sorted((self.folder / "raw").rglob("*.mp4"))[:5]
        places = (
            "a/0001.mp4",
            "a/0002.avi",
            "wards/kept/sick/p1_left.mp4",
            "wards/kept/well/p2_left.mp4",
            "wards/kept/unclear/p3_left.mp4",
        )
        for clip, place in zip(clips, (*places,), strict=True):
            (self.folder / "raw" / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, self.folder / "raw" / place)
        shutil.copy(clips[0], self.folder / "raw" / "clip.mp4")
        numbers = (64, 40, 12, 40_000)
        header = b"USCAPT01" + b"".join(number.to_bytes(4, "little") for number in numbers)
        (self.folder / "raw" / "a.cap").write_bytes(header + bytes(range(256)) * 10 * 12)

    def _published_split(self) -> None:
        import pandas

        videos = pandas.read_parquet(self.folder / "set" / "frames.parquet", columns=["video_id", "split"]).drop_duplicates()
        with (self.folder / "FileList.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("video_id", "split"), *videos.itertuples(index=False)])
