"""The files of an audit: equal content, safe text, gone when the tables change; read-only sets, other folders; and what a repeat needs."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

import usdata
from tests.command_lines import run_here
from tests.usdata.auditing.planted import Planted, duplicate
from tests.usdata.clips import speckle_frames, write_video
from usdata import manifest
from usdata.auditing import audit, writable
from usdata.auditing.reproducibility import recipe_text
from usdata.cataloguing import catalog
from usdata.errors import DataSetError, UserError
from usdata.recipe import Recipe

HOSTILE = "<img src=x onerror=alert(1)>| [a](javascript:b) ![c](http://d.e/f.png) `g` **h** <https://i.j> www.k.org \\ # l"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_here("usdata", "audit", *arguments)


def test_four_files_and_one_content(tmp_path: Path) -> None:
    Planted().write(tmp_path / "set")
    result = audit(tmp_path / "set")
    assert [path.name for path in result.files] == list(manifest.REPORT_FILES)
    assert all(path.is_file() for path in result.files)
    first = {path.name: path.read_bytes() for path in result.files}
    assert json.loads(first["report.json"]) == result.to_json()
    told = command(tmp_path / "set", "--json")
    assert told.returncode == 0, told.stderr
    assert told.stdout.encode() == first["report.json"]
    assert {path.name: path.read_bytes() for path in audit(tmp_path / "set").files} == first
    assert all(str(tmp_path) not in content.decode() for content in first.values())


def hostile() -> Planted:
    planted = Planted()
    planted.name = HOSTILE
    planted.set_video(2, label=HOSTILE)
    planted.set_video(3, licence=HOSTILE)
    planted.set_video(4, codec=HOSTILE, organ=HOSTILE)
    planted.videos[0] |= {"path": HOSTILE + "\n# a heading\n", "reason": HOSTILE, "status": "failed"}
    planted.drop_frames("clinic/v00")
    for row in (planted.videos[5], *planted.frames, *planted.excluded):
        if row["video_id"] == "clinic/v05":
            row["video_id"] = HOSTILE
    planted.duplicates = [duplicate("clinic/v04", HOSTILE)]
    planted.recipe = {"name": HOSTILE, "note": f"{HOSTILE}\n\n</code>{HOSTILE}"}
    return planted


def tokens(text: str) -> list[Token]:
    """All tokens of a page as CommonMark with tables and bare addresses reads it, those inside paragraphs too."""
    found: list[Token] = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        found += [token, *(token.children or ())]
    return found


@pytest.mark.parametrize("name", ["report.md", "ATTRIBUTION.md"])
def test_hostile_names_are_plain_text_in_markdown(name: str, tmp_path: Path) -> None:
    result = audit(hostile().write(tmp_path))
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert len(result.findings) > 3
    read = tokens(text)
    kinds = {token.type for token in read}
    assert not kinds & {"html_block", "html_inline", "image"}
    links = [token.attrs["href"] for token in read if token.type == "link_open"]
    assert links == []
    # Read back, the text is what stands in the table, but for the white space.
    shown = " ".join(token.content for token in read if token.type == "text")
    assert "<img src=x onerror=alert(1)>" in shown
    headings = [following.content for token, following in pairwise(read) if token.type == "heading_open"]
    assert "a heading" not in headings
    assert not {token.content for token in read if token.type == "code_inline"} & {"g"}
    cells = [token for token in read if token.type in ("th_open", "tr_open")]
    assert cells, "tables are tables"


def test_tables_keep_their_columns_whatever_is_in_them(tmp_path: Path) -> None:
    audit(hostile().write(tmp_path))
    for name in ("report.md", "ATTRIBUTION.md"):
        widths, width = set(), 0
        for token in tokens((tmp_path / name).read_text(encoding="utf-8")):
            if token.type == "tr_open":
                width = 0
            width += token.type in ("td_open", "th_open")
            if token.type == "tr_close":
                widths.add(width)
            if token.type == "table_close":
                assert len(widths) == 1
                widths = set()


def test_the_appendix_says_what_was_counted(tmp_path: Path) -> None:
    planted = Planted()
    planted.set_video(4, licence="CC BY-NC-SA 4.0")
    result = audit(planted.write(tmp_path))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| **taken by the sampling rule, in a split** | **10** | **30** |" in text
    assert "| clinic | benign | train | 3 | 3 | 6 | 18 |" in text
    assert "The strictest is CC BY-NC-SA 4.0." in text
    for finding in result.findings:
        assert f"| {finding.level} | `{finding.id}` |" in text
    named = (tmp_path / "ATTRIBUTION.md").read_text(encoding="utf-8")
    asks = "name the source; use it for nothing commercial; pass on what is made of it under the same terms"
    assert f"| CC BY-NC-SA 4.0 | {asks} | 1 | 3 |" in named
    assert "| CC BY 4.0 | name the source | 9 | 27 |" in named


@pytest.mark.parametrize(
    ("source", "layout", "recipe", "entry", "found_by"),
    [
        ("covid-blues", "table", "mine", "covid-blues", "name"),
        ("clinic", "echonet", "mine", None, None),
        ("clinic", "camus", "mine", "camus", "layout"),
        ("clinic", "table", "covid-blues", "covid-blues", "recipe"),
        ("pocus-lung", "table", "pocus-lung", "pocus", "beginning"),
        ("us4-clust-more", "table", "mine", "us4-clust", "beginning"),
        ("clinic", "table", "mine", None, None),
    ],
)
def test_sources_are_named_from_the_catalogue(
    source: str, layout: str, recipe: str, entry: str | None, found_by: str | None, tmp_path: Path
) -> None:
    planted = Planted()
    planted.recipe = {"name": recipe, "sources": [{"name": source, "layout": layout}]}
    for table in (planted.videos, planted.frames, planted.excluded):
        for row in table:
            row["source"] = source
    [row] = audit(planted.write(tmp_path)).statistics["attribution"]
    assert (row["entry"], row["found_by"]) == (entry, found_by)
    known = {each.name: each for each in catalog()}
    text = (tmp_path / "ATTRIBUTION.md").read_text(encoding="utf-8")
    if entry is None:
        assert "ask whoever made this source" in text
    else:
        assert row["citation"] == known[entry].citation
        assert f"usdata catalog {entry}" in text


def test_another_folder_takes_the_files_and_the_set_stays_as_it_is(tmp_path: Path) -> None:
    Planted().write(tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "set").rglob("*"))}
    result = audit(tmp_path / "set", out=tmp_path / "a" / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(manifest.REPORT_FILES)
    assert result.report == tmp_path / "a" / "b" / "report.html"
    assert {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "set").rglob("*"))} == before


def test_places_that_cannot_take_the_files_are_refused_before_the_work(tmp_path: Path) -> None:
    Planted().write(tmp_path / "set", images=False)
    with pytest.raises(UserError, match="lies inside the data set"):
        audit(tmp_path / "set", out=tmp_path / "set" / "images")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        audit(tmp_path / "set", out=tmp_path / "file")


NOT_WRITABLE = Path("/proc/usdata-report")  # where even root makes no file


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_that_may_only_be_read_is_one_line_and_json_still_prints(tmp_path: Path) -> None:
    Planted().write(tmp_path / "set", images=False)
    assert not writable(NOT_WRITABLE)
    with pytest.raises(DataSetError, match="cannot be written; give --out DIR"):
        audit(tmp_path / "set", out=NOT_WRITABLE, pictures=False)
    refused = command(tmp_path / "set", "--out", NOT_WRITABLE, "--no-pictures")
    assert (refused.returncode, len(refused.stderr.splitlines()), refused.stdout) == (2, 1, "")
    printed = command(tmp_path / "set", "--out", NOT_WRITABLE, "--no-pictures", "--json")
    assert printed.returncode == 0
    assert json.loads(printed.stdout)["report"] is None
    assert "cannot be written" in printed.stderr


def test_the_files_go_with_the_tables_that_they_told_of(tmp_path: Path) -> None:
    for number in range(4):
        write_video(tmp_path / "raw" / f"clip_{number}.mp4", speckle_frames(12, seed=number))
    source = {"name": "clips", "layout": "files", "patient_ids": "public"}
    about = {"name": "clips", "sources": [source], "modes": None, "folds": {"count": 2}, "duplicates": {"content": False}}
    recipe = Recipe.model_validate(about)
    built = usdata.build(recipe, raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    files = audit(built.out).files
    usdata.build(recipe, raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    assert all(path.is_file() for path in files), "a build that changes nothing leaves the report, which is still true"
    result = usdata.split(built.out, folds=4)
    assert any("report.html" in note for note in result.notes)
    assert not any(path.exists() for path in files)
    files = audit(built.out).files
    usdata.build(recipe, raw=tmp_path / "raw", out=tmp_path / "set", workers=1, overwrite=True)
    assert not any(path.exists() for path in files)
    # And the recipe that the report prints makes this set.
    facts = audit(built.out).statistics["reproducibility"]
    assert Recipe.model_validate(yaml.safe_load(facts["recipe"])).digest == manifest.open_dataset(built.out).about["recipe_digest"]
    assert facts["commands"] == ["usdata build RECIPE.yaml --raw RAW --out SET", "usdata audit SET"]


@pytest.mark.parametrize("name", ["phantom", "us4", "pocus-lung", "covid-blues"])
def test_a_recipes_text_has_its_digest(name: str) -> None:
    from usdata.recipe_files import load_recipe

    recipe = load_recipe(name)
    text = recipe_text(recipe.model_dump(mode="json"))
    assert text is not None
    assert Recipe.model_validate(yaml.safe_load(text)).digest == recipe.digest


def test_published_splits_are_among_the_commands(tmp_path: Path) -> None:
    planted = Planted()
    planted.write(tmp_path, images=False)
    about = dict(manifest.open_dataset(tmp_path).about)
    about |= {"split_origin": {"kind": "published", "name": "FileList.csv", "sha256": "ab", "leaks": {"clips": 2}, "rest": "train"}}
    manifest.write_about(tmp_path, {key: value for key, value in about.items() if key not in ("digest", "schema_version")})
    facts = audit(tmp_path, write_report=False, pictures=False).statistics["reproducibility"]
    assert facts["published"]["split"]["name"] == "FileList.csv"
    assert "usdata split SET --published 'FileList.csv' --apply --rest train --allow-leaks   # split" in facts["commands"]
