"""Published splits in every shape that is read, and rubbish in one clear line."""

import hashlib
import json
from pathlib import Path

import pytest

from usdata.errors import UserError
from usdata.splitting.published import read_published

ENTRIES = [("a/clip 1.mp4", "train"), ("clip2", "val"), ("clip3.gif", "test")]


def write_shape(shape: str, folder: Path) -> Path:
    """The same three names in one of the shapes."""
    if shape == "csv":
        text = "FileName,EF,Split\n" + "".join(f"{name},50,{part.upper()}\n" for name, part in ENTRIES)
    elif shape == "semicolons.csv":
        text = "\ufefffile_name;subset\n" + "".join(f"{name};{part}\n" for name, part in ENTRIES)
    elif shape == "tsv":
        text = "set\tvideo\n" + "".join(f"{part}\t{name}\r\n" for name, part in ENTRIES)
    elif shape == "rows.json":
        text = json.dumps([{"video_id": name, "partition": part} for name, part in ENTRIES])
    elif shape == "names.json":
        text = json.dumps(dict(ENTRIES))
    elif shape == "parts.json":
        text = json.dumps({"training": ["a/clip 1.mp4"], "valid": ["clip2"], "test": ["clip3.gif"]})
    else:
        for name, part in ENTRIES:
            place = folder / shape / (f"{part}.txt" if shape == "lists" else f"{part}/{name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{name}\n\n")
        return folder / shape
    path = folder / f"split.{shape.rpartition('.')[2]}"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("shape", ["csv", "semicolons.csv", "tsv", "rows.json", "names.json", "parts.json", "lists", "trees"])
def test_every_shape_gives_the_same_names_and_parts(shape: str, tmp_path: Path) -> None:
    path = write_shape(shape, tmp_path)
    read = read_published(path)
    assert sorted(read.entries) == sorted(ENTRIES)
    assert (read.column, read.name, read.notes) == ("split", path.name, [])
    if path.is_file():
        assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("given", "folds"), [(["0", "1", "2"], "012"), (["1", "2", "3"], "012"), (["fold_7", "fold_9", "Split 8"], "021")])
def test_folds_count_from_zero(given: list[str], folds: str, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("name,fold\n" + "".join(f"c{n},{part}\n" for n, part in enumerate(given)))
    read = read_published(tmp_path / "f.csv")
    assert [part for _, part in read.entries] == list(folds)
    assert bool(read.notes) == (given[0] != "0")


def test_of_two_columns_one_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("name,fold,split\na,0,train\nb,1,test\n")
    with pytest.raises(UserError, match=r"2 columns of parts \(split, fold\); choose one"):
        read_published(tmp_path / "f.csv")
    assert read_published(tmp_path / "f.csv", column="fold").column == "fold"
    with pytest.raises(UserError, match="did you mean 'fold'"):
        read_published(tmp_path / "f.csv", column="folt")


RUBBISH = {
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"name,split\n", "holds no rows"),
    "binary.csv": (bytes(range(256)) * 4, "is no text in UTF-8"),
    "zeros.csv": (b"name,split\na\0,train\n", "holds zero bytes"),
    "short.csv": (b"name,split\na\n", "row 2 has 1 cells and the first 2"),
    "gap.csv": (b"name,split\na,\n", "row 1 has no split"),
    "words.csv": (b"name,split\na,train\nb,holdout\n", r"'holdout' \(of b\) is no part"),
    "mixed.csv": (b"name,split\na,train\nb,3\n", r"both parts \(train\) and numbers"),
    "one.csv": (b"name,fold\na,0\nb,0\n", "one fold only"),
    "unnamed.csv": (b"colour,split\na,train\n", "no column that names clips or frames; there are colour, split"),
    "partless.csv": (b"name,label\na,benign\n", "has no column of parts"),
    "quote.csv": (b'name,split\n"a,train\n' + b"x" * 200_000, "is no readable table"),
    "broken.json": (b'{"a": ', "is no readable JSON"),
    "deep.json": (b"[" * 100_000, "is no readable JSON"),
    "list.json": (b"[1, 2]", "holds no table of names and parts"),
    "nothing.json": (b"{}", "holds no table of names and parts"),
    "train.txt": (b"a\n", "give the folder that holds the lists"),
    "split.xlsx": (b"PK", "is no CSV, TSV or JSON table"),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, words = RUBBISH[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as told:
        read_published(tmp_path / name)
    assert "\n" not in str(told.value)


def test_folders_that_are_no_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither lists nor folders"):
        read_published(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="names nothing"):
        read_published(tmp_path)
    (tmp_path / "test.txt").write_text("a\n")
    with pytest.raises(UserError, match="holds both lists"):
        read_published(tmp_path)
    (tmp_path / "folds" / "split0" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="a split of its own, not a fold"):
        read_published(tmp_path / "folds")
    with pytest.raises(UserError, match="for tables"):
        read_published(tmp_path, column="split")
