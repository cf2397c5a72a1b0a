"""Every known layout on a made-up tree of its own shape: names, patients, labels, and nothing of the tree lost."""

import typing
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.usdata.clips import speckle_frames, write_png, write_video
from usdata.errors import UserError
from usdata.known_layouts import KNOWN_LAYOUTS
from usdata.layouts import RawVideo, list_videos
from usdata.phantoms.encoding import write_clip
from usdata.recipe import LayoutName, Recipe, Source
from usdata.recipe_files import load_recipe, shipped_recipes


def tree(folder: Path, *paths: str) -> Path:
    """Files as their suffixes say: small clips and images of speckle, and text."""
    for index, path in enumerate(paths):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix in (".png", ".jpg"):
            write_png(target, speckle_frames(1, seed=index)[0])
        elif path.endswith((".nii.gz", ".nii")):
            nibabel.save(nibabel.Nifti1Image(np.moveaxis(speckle_frames(3, seed=index), 0, 2), np.eye(4)), target)
        elif target.suffix in (".txt", ".cfg", ".csv"):
            target.write_text("x")
        elif target.suffix == ".gif":
            write_clip(target, np.stack(speckle_frames(3, seed=index)), 20)
        else:
            write_video(target, speckle_frames(3, seed=index), codec="ffv1")
    return folder


def rows_of(raw: Path, **source: object) -> dict[str, RawVideo]:
    recipe = Recipe(name="test", sources=[Source.model_validate({"name": "s"} | source)])
    found = list_videos(recipe, raw)
    members = [member for row in found for member in (row.members or (row.path,))]
    files = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file())
    assert sorted(members) == files, "every file of the tree belongs to exactly one row"
    return {row.path: row for row in found}


def test_the_names_that_a_recipe_may_give_are_the_known_ones() -> None:
    assert set(typing.get_args(LayoutName)) == {"table", "files", *KNOWN_LAYOUTS}


@pytest.mark.parametrize("name", KNOWN_LAYOUTS)
def test_each_layouts_own_example_is_taken_by_it(name: str, tmp_path: Path) -> None:
    raw = tree(tmp_path, *KNOWN_LAYOUTS[name].tree)
    if name == "echonet":
        (raw / "FileList.csv").write_text("FileName,EF,ESV,EDV,Split\n0X1A0A263B22CCD966,55.7,10,20,TRAIN\n")
    rows = rows_of(raw, layout=name, label_map=None)
    assert any(row.status == "ok" for row in rows.values())
    assert all(row.status == "ok" or Path(path).suffix in (".txt", ".cfg", ".csv") for path, row in rows.items())


def test_class_folders(tmp_path: Path) -> None:
    rows = rows_of(tree(tmp_path, "healthy/a.mkv", "ill/ward 3/b.mkv", "loose.mkv"), layout="class-folders")
    assert rows["healthy/a.mkv"].facts["label"] == "healthy"
    assert rows["ill/ward 3/b.mkv"].facts["label"] == "ill"
    assert rows["loose.mkv"].reason == "its path does not match the source's pattern"


def test_us4_clips_take_class_and_running_number_from_the_path(tmp_path: Path) -> None:
    raw = tree(tmp_path, "patient_007/Bli-1.mkv", "Patient 12/Ali_2.mkv", "F3_x.mkv", "Reg-1.mkv", "Mueller/Oth-4.mkv", "Xyz-1.mkv")
    rows = rows_of(raw, layout="us4-clips")
    assert {path: row.facts.get("label") for path, row in rows.items() if row.status == "ok"} == {
        "patient_007/Bli-1.mkv": "Bli",
        "Patient 12/Ali_2.mkv": "Ali",
        "F3_x.mkv": "F3_",
        "Reg-1.mkv": "Reg",
        "Mueller/Oth-4.mkv": "Oth",
    }
    assert rows["patient_007/Bli-1.mkv"].patient_id == "007"
    assert rows["Patient 12/Ali_2.mkv"].patient_id == "12"
    assert rows["Mueller/Oth-4.mkv"].patient_id is None, "a name is no running number"
    assert rows["Xyz-1.mkv"].status == "excluded"


def test_us4_folders_are_clips_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames = [f"Cov-12_mp4/Cov-12_mp4_frame{number}.jpg" for number in (0, 10, 9)]
    raw = tree(tmp_path, *frames, "F0_-3_avi/F0_-3_avi_frame1.jpg", "Own-1_mp4/Own-1_mp4_frame0.jpg", "readme.txt")
    rows = rows_of(raw, layout="us4-folders")
    assert {row.name: row.facts["label"] for row in rows.values() if row.status == "ok"} == {
        "Cov-12_mp4": "Cov",
        "F0_-3_avi": "F0_",
        "Own-1_mp4": "Own",
    }
    assert rows["Cov-12_mp4"].members == tuple(sorted(frames))


def test_clust_has_sequences_of_either_number_of_digits_and_annotations_that_are_no_clips(tmp_path: Path) -> None:
    four = [f"TrainingSet/ETH-01/Data/{number:04d}.png" for number in range(1, 4)]
    five = [f"Rb2-MED-03/Data/{number:05d}.png" for number in range(1, 4)]
    raw = tree(tmp_path, *four, *five, "TrainingSet/ETH-01/Annotation/ETH-01_1.txt", "Rb2-MED-03/Annotation/overview.png")
    rows = rows_of(raw, layout="clust")
    assert rows["TrainingSet/ETH-01/Data"].name == "TrainingSet__ETH-01"
    assert "label" not in rows["TrainingSet/ETH-01/Data"].facts
    assert rows["Rb2-MED-03/Data"].facts == {"organ": "liver", "label": "Rb2"}
    assert {row.status for row in rows.values() if "Annotation" in row.path} == {"excluded"}
    assert rows["Rb2-MED-03/Annotation/overview.png"].reason == "points to be tracked (CLUST's annotation), not a clip"


def test_pocus_names(tmp_path: Path) -> None:
    raw = tree(
        tmp_path,
        "pocus_videos/convex/Cov-Atlas+(44).mkv",
        "pocus_videos/convex/pneu-everyday.mkv",
        "pocus_videos/linear/Vir_1.mkv",
        "pocus_videos/convex/label_uncertain/Reg-x.mkv",
        "pocus_images/convex/Reg_a.jpg",
        "data.csv",
    )
    rows = rows_of(raw, layout="pocus")
    assert {path: (row.facts["label"], row.facts["probe"]) for path, row in rows.items() if row.status == "ok"} == {
        "pocus_videos/convex/Cov-Atlas+(44).mkv": ("covid", "convex"),
        "pocus_videos/convex/pneu-everyday.mkv": ("bacterial_pneumonia", "convex"),
        "pocus_videos/linear/Vir_1.mkv": ("viral_pneumonia", "linear"),
        "pocus_images/convex/Reg_a.jpg": ("regular", "convex"),
    }
    assert rows["pocus_videos/convex/label_uncertain/Reg-x.mkv"].reason == "its label is uncertain, its authors say"


def test_covid_blues_names_alone_and_with_a_table(tmp_path: Path) -> None:
    raw = tree(tmp_path, "lus_videos/patient_12_L1.mkv", "lus_videos/patient_3_R3.mkv")
    rows = rows_of(raw, layout="covid-blues")
    assert {(row.patient_id, row.facts["view"]) for row in rows.values()} == {("12", "L1"), ("3", "R3")}
    (raw / "scores.csv").write_text("file,severity\nlus_videos/patient_12_L1.mkv,2\n")
    rows = rows_of(raw, layout="covid-blues", table="scores.csv", columns={"path": "file", "label": "severity"})
    row = rows["lus_videos/patient_12_L1.mkv"]
    assert (row.patient_id, row.facts["view"], row.facts["label"], row.facts["probe"]) == ("12", "L1", "2", "convex")
    assert rows["lus_videos/patient_3_R3.mkv"].reason == "no source of the recipe names it"


def test_echonet_lists_its_clips_without_suffix(tmp_path: Path) -> None:
    raw = tree(tmp_path, "Videos/0X1.avi", "Videos/0X2.avi", "VolumeTracings.csv")
    (raw / "FileList.csv").write_text("FileName,EF,ESV,EDV,FPS,Split\n0X1,60.5,30,70,50,TRAIN\n0X3,60.5,30,70,50,VAL\n")
    rows = rows_of_with_missing(raw)
    assert rows["Videos/0X1.avi"].labels == ("EF=60.5", "ESV=30", "EDV=70", "Split=TRAIN")
    assert rows["Videos/0X3.avi"].reason == "listed in FileList.csv (line 3), but not there"
    assert rows["Videos/0X2.avi"].reason == "no source of the recipe names it"
    assert rows["VolumeTracings.csv"].reason == "tracings of the left ventricle, not a clip"


def rows_of_with_missing(raw: Path) -> dict[str, RawVideo]:
    recipe = Recipe(name="test", sources=[Source.model_validate({"name": "s", "layout": "echonet"})])
    return {row.path: row for row in list_videos(recipe, raw)}


def test_camus_sequences_with_what_their_info_file_says(tmp_path: Path) -> None:
    one = "patient0001/patient0001_2CH"
    raw = tree(tmp_path, f"{one}_half_sequence.nii.gz", f"{one}_half_sequence_gt.nii.gz", f"{one}_ED.nii.gz", f"{one}_ED_gt.nii.gz")
    (raw / "patient0001" / "Info_2CH.cfg").write_text("ED: 1\nNbFrame: 3\nSex: F\nImageQuality: Good\nEF: 63\n")
    rows = rows_of(raw, layout="camus")
    row = rows[f"{one}_half_sequence.nii.gz"]
    assert (row.patient_id, row.facts["view"], row.labels) == ("patient0001", "2CH", ("ImageQuality=Good", "EF=63"))
    assert rows[f"{one}_half_sequence_gt.nii.gz"].reason == "a segmentation mask, not a clip"
    assert rows[f"{one}_ED_gt.nii.gz"].reason == "a segmentation mask, not a clip"
    assert rows[f"{one}_ED.nii.gz"].reason == "one frame of the sequence beside it"


def test_a_recipes_own_keys_go_before_the_layouts(tmp_path: Path) -> None:
    source = Source.model_validate({"name": "s", "layout": "covid-blues", "names": "path", "constants": {"probe": "linear"}})
    assert (source.names, source.constants["probe"], source.constants["organ"]) == ("path", "linear", "lung")
    assert Source.model_validate(source.model_dump(mode="json")) == source


def test_an_optional_source_may_be_missing_but_not_all_of_them(tmp_path: Path) -> None:
    raw = tree(tmp_path / "raw", "us4-butterfly/Reg-1.mkv")
    rows = list_videos(load_recipe("us4"), raw)
    assert [(row.source, row.facts["label"]) for row in rows] == [("us4-butterfly", "lung_normal")]
    with pytest.raises(UserError, match=r"the folder of source 'us4-clust' is missing"):
        list_videos(load_recipe("us4-clust"), raw)
    other = tree(tmp_path / "other", "Reg-1.mkv")
    with pytest.raises(UserError, match="holds none of the recipe's folders"):
        list_videos(load_recipe("us4"), other)


US4_CLASSES = {"Rb1": 0, "Rb5": 4, "F0_": 5, "F4_": 9, "Reg": 10, "Ali": 10, "Cov": 11, "Bli": 11, "Ple": 11, "Oth": 11}


def test_us4s_class_map_is_the_papers() -> None:
    recipe = load_recipe("us4")
    assert recipe.classes is not None
    assert len(recipe.classes) == 12
    maps = {prefix: label for source in recipe.sources for prefix, label in (source.label_map or {}).items()}
    assert {prefix: recipe.classes.index(str(maps[prefix])) for prefix in US4_CLASSES} == US4_CLASSES
    assert sum(source.expected.videos or 0 for source in recipe.sources) == 1051
    assert sum(source.expected.frames or 0 for source in recipe.sources) == 23231


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_accounts_for_everything_under_raw(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    raw = tmp_path / "raw"
    for source in recipe.sources:
        root = raw / source.root
        prefix = next(iter(source.label_map or {"Cov": ""}))
        deep = f"deep/er/{prefix}-1.mkv"
        tree(root, deep, "Cov-2.mkv" if source.table else f"{prefix}-2.mkv", "notes.txt", "cut.mp4")
        tree(root, "ETH-01/Data/0001.png", "F1_-1_avi/F1_-1_avi_frame0.jpg")
        (root / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
        (root / "empty.avi").write_bytes(b"")
        if source.table is not None:
            columns = sorted({*source.columns.values(), *source.label_columns})
            label = next(iter(source.label_map or {"x": "x"}))
            given = {source.columns["path"]: "Cov-2.mkv"} | ({source.columns["label"]: label} if "label" in source.columns else {})
            values = [given.get(column, "0.1" if column.startswith("mm_") else "1") for column in columns]
            (root / source.table).write_text(",".join(columns) + "\n" + ",".join(values) + "\n")
    tree(raw, "stray.mkv", "beside/Reg-9.mkv")
    rows = list_videos(recipe, raw)
    members = [member for row in rows for member in row.members]
    assert sorted(members) == sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file())
    assert {row.status for row in rows} <= {"ok", "excluded", "failed"}
    assert all(row.reason for row in rows if row.status != "ok")
    assert any(row.status == "ok" for row in rows)
