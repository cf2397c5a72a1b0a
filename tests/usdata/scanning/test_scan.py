"""A scan tells of every file once, with the truth about it; the truth is planted."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.usdata.clips import speckle_frames, write_png, write_video
from tests.usdata.privacy.test_release import dicom
from tests.usdata.readers.generated import X264_B, encode
from usdata.building import build, plan
from usdata.errors import UserError
from usdata.manifest import open_dataset
from usdata.recipe_files import load_recipe
from usdata.scanning import ScannedFile, ScanResult, scan
from usdata.scanning.first_recipe import write_first_recipe
from usdata.scanning.terminal import print_scan

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan") / "raw"
    write_video(folder / "ward" / "a.mkv", speckle_frames(40, seed=1), codec="ffv1", fps=20)
    write_video(folder / "ward" / "b.mkv", speckle_frames(6, seed=2), codec="ffv1")
    shutil.copy(write_png(folder / "scans" / "left_010.png", speckle_frames(1)[0]), folder / "ward" / "picture.mp4")
    for number, pixels in enumerate(speckle_frames(8, seed=3)):
        if number != 4:
            write_png(folder / "scans" / f"left_{10 + number:03}.png", pixels)
    for number in range(3):  # numbered, and of different sizes: no sequence
        write_png(folder / "figures" / f"figure_{number}.png", speckle_frames(1, seed=4, height=40 + number)[0])
    frames = np.stack(speckle_frames(60, height=120, width=160))[..., None].repeat(3, axis=3)
    cut = encode(folder / "cut.mp4", frames, *X264_B, "-movflags", "+faststart")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (folder / "empty.avi").touch()
    (folder / "broken.zip").write_bytes(b"PK\x03\x04" + bytes(50))
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.write(folder / "ward" / "b.mkv", "deep/b.mkv")
        archive.writestr("readme.txt", "about these clips\n" * 4)
    (folder / "notes.txt").write_text("written by hand\n" * 5)
    return folder


@pytest.fixture(scope="module")
def scanned(raw: Path) -> dict[str, ScannedFile]:
    return {file.path: file for file in scan(raw, workers=2).files}


def test_every_file_is_told_once(scanned: dict[str, ScannedFile]) -> None:
    assert {path: (file.kind, file.status) for path, file in scanned.items()} == {
        "broken.zip": ("unreadable", "refused"),
        "cut.mp4": ("mp4", "clip"),
        "empty.avi": ("empty", "refused"),
        "figures/figure_0.png": ("png", "clip"),
        "figures/figure_1.png": ("png", "clip"),
        "figures/figure_2.png": ("png", "clip"),
        "notes.txt": ("text", "other"),
        "packed.zip/deep/b.mkv": ("matroska", "clip"),
        "packed.zip/readme.txt": ("text", "other"),
        "scans/left_#.png": ("sequence", "clip"),
        "ward/a.mkv": ("matroska", "clip"),
        "ward/b.mkv": ("matroska", "clip"),
        "ward/picture.mp4": ("png", "clip"),
    }


def test_what_is_told_of_clips_is_true(scanned: dict[str, ScannedFile]) -> None:
    facts = scanned["ward/a.mkv"].facts
    assert facts is not None
    assert (facts["codec"], facts["width"], facts["height"], facts["frames_decoded"], facts["fps"]) == ("ffv1", 80, 64, 40, 20.0)
    assert scanned["ward/a.mkv"].frames_at_3_hz == 6  # of two seconds
    assert (facts["colour_kind"], facts["flags"]) == ("gray", [])
    sequence = scanned["scans/left_#.png"]
    assert (sequence.images, sequence.facts and sequence.facts["flags"]) == (7, ["missing_frames", "short"])
    assert sequence.facts is not None
    assert sequence.facts["notes"] == ["images are missing from the sequence: 14"]
    assert scanned["packed.zip/deep/b.mkv"].facts == scanned["ward/b.mkv"].facts
    assert [path for path, file in scanned.items() if file.named_wrongly] == ["ward/picture.mp4"]
    assert [path for path, file in scanned.items() if file.damaged] == ["cut.mp4", "scans/left_#.png"]
    cut = scanned["cut.mp4"].facts
    assert cut is not None
    assert 0 < cut["frames_decoded"] < cut["frames_declared"] == 60
    assert "damaged" in (scanned["broken.zip"].reason or "")
    assert scanned["empty.avi"].reason == "is empty (0 bytes)"


def test_workers_do_not_change_the_answer(raw: Path, scanned: dict[str, ScannedFile]) -> None:
    assert {file.path: file for file in scan(raw, workers=1).files} == scanned


def test_one_file_or_archive_alone(raw: Path, scanned: dict[str, ScannedFile]) -> None:
    assert scan(raw / "ward" / "a.mkv").files == [replace(scanned["ward/a.mkv"], path="a.mkv")]
    assert [file.path for file in scan(raw / "packed.zip").files] == ["packed.zip/deep/b.mkv", "packed.zip/readme.txt"]
    assert [(file.status, file.reason) for file in scan(raw / "empty.avi").files] == [("refused", "is empty (0 bytes)")]


def test_headers_alone_tell_sizes_and_no_counts(raw: Path) -> None:
    files = {file.path: file for file in scan(raw, headers_only=True).files}
    facts = files["ward/a.mkv"].facts
    assert facts is not None
    assert (facts["width"], facts["height"], facts["frames_decoded"]) == (80, 64, None)


def test_the_terminal_fits_80_columns_and_names_what_matters(
    raw: Path, scanned: dict[str, ScannedFile], capsys: pytest.CaptureFixture[str]
) -> None:
    print_scan(ScanResult(raw, list(scanned.values()), 1.0), Console(width=80, highlight=False))
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith(("  ", "other")))
    assert "8 clips" in text.replace("\n", " ") or "clips (" in text
    for word in ("cut.mp4", "empty.avi", "broken.zip", "ward/picture.mp4", "left_#.png"):
        assert word in text
    assert "…" not in "".join(line for line in lines if line.startswith(("matroska", "mp4", "png", "sequence")))


def test_hostile_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = ScannedFile("a\x1b[31m[red]x.mp4", "mp4", "refused", "bad \x1b[2J[/red] reason")
    print_scan(ScanResult(Path("raw"), [evil], 1.0), Console(width=80, force_terminal=False))
    text = capsys.readouterr().out
    assert "\x1b[31m" not in text
    assert "[red]" in text


def test_the_first_recipe_builds_as_it_is(raw: Path, tmp_path: Path) -> None:
    result = scan(raw)
    write_first_recipe(result, tmp_path / "mine.yaml")
    built = build(str(tmp_path / "mine.yaml"), raw=raw, out=tmp_path / "set")
    # Every clip that the scan could read is kept, the sequence as one clip and not as eight stills.
    assert built.counts["ok"] == len(result.clips)
    assert {path for path, _ in built.failed} == {"broken.zip", "empty.avi"}
    with pytest.raises(UserError, match="exists already"):
        write_first_recipe(result, tmp_path / "mine.yaml")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_beside_the_clips_becomes_a_source_of_its_own(tmp_path: Path, separator: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "my raw"
    for number in range(4):
        write_video(raw / "clips" / f"c{number}.mkv", speckle_frames(5, seed=number), codec="ffv1")
    rows = "".join(f"clips/c{number}.mkv,P{number // 2},{'ab'[number % 2]},7\n" for number in range(4))
    (raw / "table.csv").write_text(f"File Name,Patient ID,Diagnosis,score\n{rows}".replace(",", separator))
    (raw / "other.csv").write_text("name,value\nx,1\n")
    found = scan(raw)
    print_scan(found)
    told = capsys.readouterr().out
    assert "4 clips (20 frames) + 0 refused + 1 table + 1 other" in " ".join(told.split())
    assert "table: table.csv names 4 of the 4 clips" in told
    assert "other: other.csv" in told
    write_first_recipe(found, tmp_path / "r.yaml")
    recipe = load_recipe(tmp_path / "r.yaml")
    (source,) = recipe.sources
    assert (source.layout, source.table, source.patient_ids) == ("table", "table.csv", "pseudonym")
    assert source.columns == {"path": "File Name", "patient": "Patient ID", "label": "Diagnosis"}
    assert "other columns: score" in (tmp_path / "r.yaml").read_text()
    with pytest.raises(UserError, match="no secret is set"):
        build(str(tmp_path / "r.yaml"), raw=raw, out=tmp_path / "set")
    overrides = ["sources.0.patient_ids=public", "folds.count=2"]
    built = build(str(tmp_path / "r.yaml"), raw=raw, out=tmp_path / "set", overrides=overrides)
    assert built.counts["ok"] == 4


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["patient_1_L1.mkv", "patient_1_L2.mkv", "patient_2_L1.mkv", "patient_2_R1.mkv"], 2),
        (["P1_left.mkv", "P1_right.mkv", "P2_left.mkv"], 2),
        (["a-1.mkv", "a-2.mkv", "b-1.mkv"], 2),
        (["ward/x/1.mkv", "ward/x/2.mkv", "ward/y/1.mkv", "ward/y/2.mkv"], 2),
        (["scan.mkv", "other.mkv"], None),
        (["lung_a.mkv", "lung_b.mkv", "lung_c.mkv"], None),  # one patient, if the first word were it
    ],
)
def test_a_pattern_is_proposed_only_where_it_fits_the_names(tmp_path: Path, names: list[str], found: int | None) -> None:
    raw = tmp_path / "raw"
    for number, name in enumerate(names):
        write_video(raw / name, speckle_frames(5, seed=number), codec="ffv1")
    write_first_recipe(scan(raw), tmp_path / "r.yaml")
    text = (tmp_path / "r.yaml").read_text()
    proposed = re.findall(r"finds (\d+) in (\d+) clips; check it\):\n *# pattern: '(.+)'", text)
    if found is None:
        assert not proposed
        assert "give a pattern with (?P<patient>...)" in text
        return
    assert {(count, clips) for count, clips, _ in proposed} == {(str(found), str(len(names)))}
    # The proposal, taken, gives that many patients.
    (tmp_path / "r.yaml").write_text(re.sub(r"# (pattern: )", r"\1", text) + "    patient_ids: public\n")
    ids = Counter(match[1] for name in names if (match := re.search(proposed[0][2], name)))
    assert plan(str(tmp_path / "r.yaml"), raw=raw).patients == sorted(ids.values(), reverse=True)


def test_ids_in_paths_are_hidden_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    for number in range(4):
        write_video(raw / f"p{number // 2}7_c{number}.mkv", speckle_frames(5, seed=number), codec="ffv1")
    (raw / "t.csv").write_text("path,patient\n" + "".join(f"p{number // 2}7_c{number}.mkv,P{number // 2}7\n" for number in range(4)))
    write_first_recipe(scan(raw), tmp_path / "r.yaml")
    monkeypatch.setenv("USDATA_SECRET", "a secret of more than thirty-two letters")
    planned = plan(str(tmp_path / "r.yaml"), raw=raw)
    assert planned.patients == [2, 2]
    assert "paths: pseudonym" in (tmp_path / "r.yaml").read_text()


def test_patients_of_dicom_come_from_the_headers_and_the_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    for number in range(3):
        dicom(raw / f"{number}.dcm", seed=number, PatientID=f"id-{number // 2}", SOPInstanceUID=f"1.2.3.{number + 1}")
    said = write_first_recipe(scan(raw), tmp_path / "r.yaml")
    assert said.endswith("no table names the clips, so they have no labels; patients are those that the DICOM headers name")
    text = (tmp_path / "r.yaml").read_text()
    assert "# Patients are those that the DICOM headers name" in text
    assert "patient_ids: pseudonym" in text
    assert "every clip counts as another patient" not in text
    monkeypatch.setenv("USDATA_SECRET", "a secret of more than thirty-two letters")
    build(str(tmp_path / "r.yaml"), raw=raw, out=tmp_path / "set", workers=1)
    assert open_dataset(tmp_path / "set").videos["patient_id"].nunique() == 2


def test_odd_folder_names_make_a_recipe_that_builds(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    names = ["a b", "a-b", "it's", "new\nline", "ümläut 🫀", "#1", "- x", "clips.zip"]
    for number, name in enumerate(names):
        write_video(raw / name / "c.mkv", speckle_frames(5, seed=number), codec="ffv1")
    write_video(raw / "top.mkv", speckle_frames(5, seed=99), codec="ffv1")
    write_first_recipe(scan(raw), tmp_path / "r.yaml")
    built = build(str(tmp_path / "r.yaml"), raw=raw, out=tmp_path / "set", overrides=["folds.count=0"])
    assert (built.counts["ok"], built.counts["found"]) == (9, 9)
    assert len(load_recipe(tmp_path / "r.yaml").sources) == 9


@pytest.mark.parametrize(("make", "reason"), [(lambda path: None, "does not exist"), (Path.mkdir, "is empty")])
def test_what_cannot_be_scanned_says_so(tmp_path: Path, make, reason: str) -> None:
    make(tmp_path / "raw")
    with pytest.raises(UserError, match=reason):
        scan(tmp_path / "raw")


def test_the_command_line(raw: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "usdata", "scan", str(raw), "--json", "--write-recipe", str(tmp_path / "r.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"] == {"files": 13, "clip": 9, "refused": 2, "other": 2}
    assert {file["path"] for file in told["files"] if file["status"] == "clip" and file["frames_decoded"] == 6} == {
        "ward/b.mkv",
        "packed.zip/deep/b.mkv",
    }
    assert (tmp_path / "r.yaml").is_file()


@pytest.mark.real_data
def test_everything_that_is_at_hand_is_read_or_refused_with_a_reason() -> None:
    shared = REPOSITORY.parent / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("the real clips are not in ../shared/data")
    result = scan(shared / "mha_pluslib")
    assert {file.kind for file in result.clips} == {"metaimage"}
    assert [file.path for file in result.files if file.status == "other"] == ["Prostate10_video.raw"]
    result = scan(shared / "dicom")
    assert len(result.clips) == 17
    assert all(file.kind == "dicom" for file in result.clips)
