"""The pages on adding one's own: each example is short, is run, and does what its page says.

The method's is in tests/uscl/test_own_methods.py.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.docs.pages import REPOSITORY, blocks_of
from usdata.building import plan
from usdata.readers import open_clip

GUIDE = REPOSITORY / "docs" / "guide"


def files_of(page: str) -> dict[str, str]:
    found = {block.value: block.text for block in blocks_of(GUIDE / page) if block.marker == "file"}
    assert all(len([line for line in text.splitlines() if line.strip()]) < 40 for text in found.values())
    return found


def run(folder: Path, *arguments: str, source: Path = REPOSITORY) -> str:
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def capture(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A .cap file as the page describes it, and its pictures."""
    pictures = np.random.default_rng(0).integers(0, 256, size=(12, 40, 64), dtype=np.uint8)
    (tmp_path / "clips").mkdir()
    path = tmp_path / "clips" / "a.cap"
    path.write_bytes(b"USCAPT01" + np.array([64, 40, 12, 40_000], "<u4").tobytes() + pictures.tobytes())
    return path, pictures


def test_own_reader_by_conversion(tmp_path: Path, capture: tuple[Path, np.ndarray]) -> None:
    path, pictures = capture
    (tmp_path / "to_nrrd.py").write_text(files_of("own-reader.md")["to_nrrd.py"])
    run(tmp_path, "to_nrrd.py", str(path))
    with open_clip(path.with_suffix(".nrrd")) as clip:
        assert np.array_equal(np.stack([frame.pixels for frame in clip.frames()]), pictures)


def test_own_reader_in_the_package(tmp_path: Path, capture: tuple[Path, np.ndarray]) -> None:
    """The page's changes, made to a copy of the package, read a .cap file whole, and a cut one as far as it goes."""
    path, pictures = capture
    source = tmp_path / "source"
    shutil.copytree(REPOSITORY / "usdata", source / "usdata", ignore=shutil.ignore_patterns("__pycache__"))
    name, text = next((name, text) for name, text in files_of("own-reader.md").items() if name.endswith("capture.py"))
    (source / name).write_text(text)
    page = (GUIDE / "own-reader.md").read_text(encoding="utf-8")
    identify = source / "usdata" / "readers" / "identify.py"
    changed = identify.read_text()
    for place, opening in (("_SIGNATURES", r"(_SIGNATURES: [^\n]*= \()"), ("MEDICAL_KINDS", r"(MEDICAL_KINDS = frozenset\(\{)")):
        row = re.search(rf"\| `{place}` \| `(.*)` \|", page)
        assert row is not None
        changed, number = re.subn(opening, lambda found, row=row: f"{found[1]}{row[1].rstrip(',')}, ", changed)
        assert number == 1
    identify.write_text(changed)
    opener = next(
        block.text for block in blocks_of(GUIDE / "own-reader.md") if "return CaptureClip(path)" in block.text and block.marker == "not run"
    )
    readers = source / "usdata" / "readers" / "__init__.py"
    readers.write_text(readers.read_text().replace("    raise _refusal(path, kind)\n", f"{opener}    raise _refusal(path, kind)\n"))
    cut = path.with_name("cut.cap")
    cut.write_bytes(path.read_bytes()[:-1000])
    code = (
        "import json, sys, numpy as np; from pathlib import Path; from usdata.readers import open_clip\n"
        "for name in sys.argv[1:]:\n"
        "    with open_clip(Path(name)) as clip:\n"
        "        pixels = np.stack([frame.pixels for frame in clip.frames()]); np.save(name + '.npy', pixels)\n"
        "        print(json.dumps([str(clip.rate), clip.cut_short, clip.frames_decoded]))\n"
    )
    told = [json.loads(line) for line in run(tmp_path, "-c", code, str(path), str(cut), source=source).splitlines()]
    assert told == [[str(Fraction(25)), False, 12], [str(Fraction(25)), True, 11]]
    assert np.array_equal(np.load(f"{path}.npy"), pictures)
    assert np.array_equal(np.load(f"{cut}.npy"), pictures[:11])


def test_own_source(tmp_path: Path) -> None:
    (tmp_path / "wards.yaml").write_text(files_of("own-source.md")["wards.yaml"])
    for name in ("kept/sick/p1_left.mp4", "kept/well/p2_left.mp4", "kept/unclear/p3_left.mp4", "drafts/p4_left.mp4", "kept/well/notes.mp4"):
        path = tmp_path / "RAW" / "wards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\0\0\x18ftypisom" + name.encode())  # the first bytes of an mp4: a plan decodes nothing
    planned = plan(str(tmp_path / "wards.yaml"), raw=str(tmp_path / "RAW"))
    assert planned.clips == {"wards": 3}
    assert planned.excluded["a draft of the sonographer"] == 1
    assert sum(planned.excluded.values()) == 2


def test_own_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the definition: the greatest share of positives found by a threshold that at most a tenth of the negatives pass."""
    generator = np.random.default_rng(1)
    rows = [
        {"video_id": f"v{video}", "independent_group": f"g{video // 2}", "label": ("sick", "well")[video % 2], "fold": 0, "seed": 0}
        | {"weights": "run", "protocol": "honest", "probability_sick": float(np.clip(generator.normal(0.7 - 0.3 * (video % 2), 0.2), 0, 1))}
        for video in range(60)
        for _ in range(3)
    ]
    frames = pd.DataFrame(rows)
    (tmp_path / "DIR").mkdir()
    frames.to_parquet(tmp_path / "DIR" / "predictions.parquet")
    (tmp_path / "sensitivity.py").write_text(files_of("own-metric.md")["sensitivity.py"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sensitivity.py", "DIR", "sick"])
    runpy.run_path("sensitivity.py")
    told = re.fullmatch(r"run: ([\d.]+) \[([\d.]+), ([\d.]+)\]\n", capsys.readouterr().out)
    assert told is not None
    score = frames.groupby("video_id")["probability_sick"].mean()
    sick = frames.groupby("video_id")["label"].first() == "sick"
    best = max((score[sick] >= at).mean() for at in [*score, 2.0] if (score[~sick] >= at).mean() <= 0.1)
    value, low, high = (float(part) for part in told.groups())
    assert value == pytest.approx(best, abs=5e-4)
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.1  # thirty patients are few
