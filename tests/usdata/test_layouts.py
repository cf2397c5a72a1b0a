"""Layouts: every file under RAW has one row, facts come from where the recipe says, private ids never stay."""

import os
from pathlib import Path

import pytest

from tests.usdata.clips import speckle_frames, write_png, write_video
from usdata.errors import UserError
from usdata.layouts import RawVideo, assign_groups, list_videos
from usdata.recipe import Recipe, Source


def recipe_of(**source: object) -> Recipe:
    return Recipe(name="test", sources=[Source.model_validate({"name": "s", "patient_ids": "public"} | source)])


TABLE = {"layout": "table", "table": "labels.csv", "columns": {"path": "file", "patient": "who", "group": "ward", "label": "finding"}}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    for index, name in enumerate(["a.mkv", "sub/b.mkv", "sub/c.mkv"]):
        write_video(folder / name, speckle_frames(3, seed=index), codec="ffv1")
    write_png(folder / "frames" / "2.png", speckle_frames(1)[0])
    write_png(folder / "frames" / "10.png", speckle_frames(1, seed=5)[0])
    (folder / "notes.txt").write_text("hello")
    (folder / "labels.csv").write_text(
        "file,who,ward,finding,organ\n"
        "a.mkv, 1 ,,healthy,lung\n"
        "sub/b.mkv,2,icu,healthy ,lung\n"
        "gone.mkv,3,icu,ill,lung\n"
        "frames,4,,ill,liver\n"
    )  # fmt: skip
    return folder


def by_path(rows: list[RawVideo]) -> dict[str, RawVideo]:
    return {row.path: row for row in rows}


def test_a_table_names_clips_folders_and_missing_files_and_the_rest_is_accounted_for(raw: Path) -> None:
    rows = by_path(list_videos(recipe_of(**TABLE, label_columns=["organ"]), raw))
    assert rows.keys() == {"a.mkv", "sub/b.mkv", "sub/c.mkv", "gone.mkv", "frames", "labels.csv", "notes.txt"}
    assert rows["a.mkv"].patient_id == "1"
    assert rows["sub/b.mkv"].facts["label"] == "healthy"
    assert rows["frames"].labels == ("organ=liver",)
    assert (rows["gone.mkv"].status, rows["gone.mkv"].reason) == ("failed", "listed in labels.csv (line 4), but not there")
    assert rows["sub/c.mkv"].reason == "no source of the recipe names it"
    assert rows["labels.csv"].reason == "the table of source 's'"
    assert rows["notes.txt"].reason == "not ultrasound media (text)"
    groups = assign_groups(rows.values())
    assert groups[rows["sub/b.mkv"].video_id] == groups[rows["gone.mkv"].video_id] == "s/group:icu"


def test_rows_do_not_depend_on_the_order_of_the_table(raw: Path) -> None:
    before = list_videos(recipe_of(**TABLE), raw)
    lines = (raw / "labels.csv").read_text().splitlines()
    (raw / "labels.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    after = list_videos(recipe_of(**TABLE), raw)
    assert [row.video_id for row in before] == [row.video_id for row in after]


def test_files_with_a_pattern(raw: Path) -> None:
    rows = by_path(list_videos(recipe_of(layout="files", pattern=r"^sub/(?P<label>[bc])\.mkv$", constants={"organ": "lung"}), raw))
    assert rows["sub/b.mkv"].facts == {"label": "b", "organ": "lung"}
    assert rows["a.mkv"].reason == "its path does not match the source's pattern"
    assert len(rows) == 7


def test_folders_of_images_as_clips(raw: Path) -> None:
    rows = by_path(list_videos(recipe_of(layout="files", unit="folder"), raw))
    assert rows["frames"].status == "ok"
    assert rows["frames"].video_id == "s/frames"
    assert "frames/2.png" not in rows


def test_exclusion_rules_give_their_reason(raw: Path) -> None:
    rows = by_path(list_videos(recipe_of(**TABLE, exclude=[{"where": {"organ": "liver", "finding": ["ill"]}, "reason": "no livers"}]), raw))
    assert (rows["frames"].status, rows["frames"].reason) == ("excluded", "no livers")
    assert rows["a.mkv"].status == "ok"
    with pytest.raises(UserError, match="did you mean 'organ'"):
        list_videos(recipe_of(**TABLE, exclude=[{"where": {"orgn": "liver"}, "reason": "x"}]), raw)


def test_a_label_map_renames_and_refuses_what_it_does_not_know(raw: Path) -> None:
    rows = by_path(list_videos(recipe_of(**TABLE, label_map={"healthy": "regular", "ill": None}), raw))
    assert rows["a.mkv"].facts["label"] == "regular"
    assert "label" not in rows["frames"].facts
    with pytest.raises(UserError, match="label 'ill'"):
        list_videos(recipe_of(**TABLE, label_map={"healthy": "regular"}), raw)


def test_private_ids_become_pseudonyms_and_are_refused_without_a_secret(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(**TABLE, patient_ids="pseudonym")
    monkeypatch.delenv("USDATA_SECRET", raising=False)
    monkeypatch.delenv("USDATA_SECRET_FILE", raising=False)
    with pytest.raises(UserError, match="no secret"):
        list_videos(recipe, raw)
    monkeypatch.setenv("USDATA_SECRET", "0123456789abcdef0123")
    rows = by_path(list_videos(recipe, raw))
    assert len(rows["a.mkv"].patient_id or "") == 20
    assert not any("icu" in key for row in rows.values() for key in row.keys)
    (raw / "labels.csv").write_text("file,who,ward,finding,organ\na.mkv,a.mkv,,x,lung\n")
    with pytest.raises(UserError, match="path or name holds a private id"):
        list_videos(recipe, raw)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("wrong,who,ward,finding\na.mkv,1,,x\n", "has no column 'file'"),
        ("file,who,ward,finding\n", "has no rows"),
        ("file,who,ward,finding\n,1,,x\n", "line 2 has no path"),
        ("file,who,ward,finding\na.mkv,1\n", "line 2 does not have 4 values"),
        ("file,who,ward,finding\n../up.mkv,1,,x\n", "outside the raw folder"),
        ("file,who,ward,finding\na.mkv,1,,x\na.mkv,2,,x\n", "lines 2 and 3 both name 'a.mkv'"),
        ('file,who,ward,finding\n"a.mkv,1,,x\n', "no CSV"),
    ],
)
def test_a_wrong_table_is_one_line(raw: Path, table: str, said: str) -> None:
    (raw / "labels.csv").write_text(table)
    with pytest.raises(UserError) as caught:
        list_videos(recipe_of(**TABLE), raw)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hostile_and_equal_names_stay_apart(tmp_path: Path) -> None:
    clip = speckle_frames(2)
    for name in ["<img src=x onerror=alert(1)>.mkv", "-img src=x onerror=alert(1)-.mkv", "a b.mkv", "a_b.mkv"]:
        write_video(tmp_path / name, clip, codec="ffv1")
    rows = list_videos(recipe_of(layout="files"), tmp_path)
    assert len({row.video_id for row in rows}) == 4
    assert all(character.isalnum() or character in "._+-/" for row in rows for character in row.video_id)
    for sub in ("x", "y"):
        write_video(tmp_path / sub / "same.mkv", clip, codec="ffv1")
    assert len(list_videos(recipe_of(layout="files"), tmp_path)) == 6
    with pytest.raises(UserError, match="same video_id"):
        list_videos(recipe_of(layout="files", names="stem"), tmp_path)


def test_missing_and_empty_raw_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_videos(recipe_of(layout="files"), tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        list_videos(recipe_of(layout="files"), tmp_path / "empty")


def test_links_pipes_and_what_a_folder_clip_leaves_over_have_rows(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_video(raw / "a.mkv", speckle_frames(2), codec="ffv1")
    write_video(tmp_path / "elsewhere" / "b.mkv", speckle_frames(2, seed=1), codec="ffv1")
    (raw / "linked").symlink_to(tmp_path / "elsewhere")
    (raw / "linked.mkv").symlink_to(tmp_path / "elsewhere" / "b.mkv")
    (raw / "broken.mkv").symlink_to(tmp_path / "nowhere")
    os.mkfifo(raw / "pipe")
    rows = by_path(list_videos(recipe_of(layout="files"), raw))
    assert {path: row.status for path, row in rows.items()} == {
        "a.mkv": "ok",
        "linked.mkv": "ok",
        "linked": "excluded",
        "broken.mkv": "excluded",
        "pipe": "excluded",
    }
    assert rows["broken.mkv"].reason == "a broken link"

    for name in ("frames/1.png", "frames/2.png", "frames/.hidden.png", "frames/deeper/9.png"):
        write_png(raw / name, speckle_frames(1)[0])
    write_video(raw / "frames" / "clip.mkv", speckle_frames(2, seed=2), codec="ffv1")
    (raw / "labels.csv").write_text("file,who,ward,finding\nframes,1,,x\n")
    rows = by_path(list_videos(recipe_of(**TABLE), raw))
    assert rows["frames"].members == ("frames/1.png", "frames/2.png")
    assert {"frames/clip.mkv", "frames/deeper/9.png", "frames/.hidden.png"} <= rows.keys()


def test_images_in_the_raw_folder_itself_are_a_clip(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        write_png(tmp_path / name, speckle_frames(1)[0])
    (row,) = list_videos(recipe_of(layout="files", unit="folder"), tmp_path)
    assert (row.video_id, row.path, row.members) == ("s/s", ".", ("1.png", "2.png"))


def test_a_stray_never_refuses_a_build_and_belongs_to_the_source_around_it(tmp_path: Path) -> None:
    write_video(tmp_path / "sub" / "clip.mkv", speckle_frames(2), codec="ffv1")
    write_video(tmp_path / "clip.mkv", speckle_frames(2, seed=1), codec="ffv1")
    (tmp_path / "labels.csv").write_text("file,who,ward,finding\nsub/clip.mkv,1,,x\n")
    rows = by_path(list_videos(recipe_of(**TABLE, names="stem"), tmp_path))
    assert rows["sub/clip.mkv"].video_id == "s/clip_mkv"
    assert rows["clip.mkv"].video_id.startswith("s/clip_mkv-")
    for folder in ("one", "two"):
        write_video(tmp_path / folder / "x.mkv", speckle_frames(2), codec="ffv1")
    (tmp_path / "two" / "notes.txt").write_text("notes")
    sources = [Source.model_validate({"name": name, "layout": "files", "root": name}) for name in ("one", "two")]
    rows = by_path(list_videos(Recipe(name="t", sources=sources), tmp_path))
    assert rows["two/notes.txt"].source == "two"


def test_names_that_differ_in_case_alone_stay_apart(tmp_path: Path) -> None:
    for index, name in enumerate(["clip.mkv", "Clip.mkv"]):
        write_video(tmp_path / name, speckle_frames(2, seed=index), codec="ffv1")
    rows = list_videos(recipe_of(layout="files"), tmp_path)
    assert len({row.video_id.casefold() for row in rows}) == 2


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("file,who,ward,finding,nick\nx.mkv,MRN-774411,,x,MRN-774411-first\n", {"columns": {**TABLE["columns"], "name": "nick"}}),
        ("file,who,ward,finding,nick\nx.mkv,MRN-774411,,x,mrn-774411\n", {"label_columns": ["nick"]}),
        ("file,who,ward,finding,nick\nx.mkv,MRN-774411,,x,y\n", {"exclude": [{"where": {"nick": "MRN-774411"}, "reason": "r"}]}),
        ("file,who,ward,finding,nick\nx.mkv,stray,,x,y\n", {}),
        ("file,who,ward,finding,nick\nx.mkv,7,,x,y\nscan_7.mkv,8,,x,y\n", {}),
    ],
)  # fmt: skip
def test_a_private_id_is_found_wherever_it_would_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, changes: dict[str, object]
) -> None:
    monkeypatch.setenv("USDATA_SECRET", "0123456789abcdef0123")
    for name in ("x.mkv", "scan_7.mkv"):
        write_video(tmp_path / name, speckle_frames(2), codec="ffv1")
    (tmp_path / "report_of_STRAY.txt").write_text("a letter")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UserError, match="private id"):
        list_videos(recipe_of(**TABLE | changes, patient_ids="pseudonym"), tmp_path)


def test_odd_characters_in_a_table_are_read_and_doubled_columns_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", speckle_frames(2), codec="ffv1")
    (tmp_path / "labels.csv").write_text('file, who,ward,finding\na.mkv,"1",,"two\nlines\u0085"\n', encoding="utf-8")
    rows = by_path(list_videos(recipe_of(**TABLE), tmp_path))
    assert rows["a.mkv"].facts["label"] == "two\nlines"
    (tmp_path / "labels.csv").write_text("file,who,ward,finding,finding\na.mkv,1,,x,y\n")
    with pytest.raises(UserError, match="column 'finding' twice"):
        list_videos(recipe_of(**TABLE), tmp_path)


def test_a_name_that_is_not_utf8_is_a_row_and_not_a_crash(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", speckle_frames(2), codec="ffv1")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/notes\xe9.txt"))).write_text("x")
    os.mkdir(os.fsencode(tmp_path) + b"/ward\xe9")
    rows = by_path(list_videos(recipe_of(layout="files"), tmp_path))
    assert {path: row.status for path, row in rows.items()} == {"a.mkv": "ok", "notes\ufffd.txt": "excluded", "ward\ufffd": "excluded"}
    assert rows["notes\ufffd.txt"].reason == "its name is not UTF-8: rename it"
