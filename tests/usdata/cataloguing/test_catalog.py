"""The catalogue: every entry holds what it should, says nothing of other entries that is not there, and US-4's parts add up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from usdata.cataloguing import CatalogEntry, catalog, load_entry
from usdata.cataloguing.terminal import print_entries, print_entry
from usdata.errors import UserError
from usdata.recipe_files import shipped_recipes

REPOSITORY = Path(__file__).resolve().parents[3]
ENTRIES = {entry.name: entry for entry in catalog()}


def test_there_are_fifteen_and_more_with_the_named_ones() -> None:
    assert len(ENTRIES) >= 15
    us4 = {"us4-butterfly", "us4-clust", "us4-liver-fibrosis", "us4-covid19-lusms"}
    others = {"pocus", "covid-blues", "covidx-us", "clust", "butterfly-hack-2018", "echonet-dynamic", "camus", "busi", "hc18"}
    assert us4 | others | {"fetal-planes", "buv", "gbusv"} <= ENTRIES.keys()


def test_the_parts_of_us4_add_up_to_the_papers_counts() -> None:
    parts = [entry.expected for entry in ENTRIES.values() if entry.part_of == "us4"]
    assert len(parts) == 4
    assert sum(part.videos or 0 for part in parts) == ENTRIES["us4"].expected.videos == 1051
    assert sum(part.images or 0 for part in parts) == ENTRIES["us4"].expected.images == 23231


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda entry: entry.name)
def test_entries_refer_to_what_there_is(entry: CatalogEntry) -> None:
    assert entry.recipe is None or entry.recipe in shipped_recipes()
    assert {overlap.source for overlap in entry.overlaps} <= ENTRIES.keys() - {entry.name}
    assert entry.part_of is None or entry.part_of in ENTRIES
    if entry.access == "never_released":
        assert not entry.steps


def test_an_entry_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'pocus'"):
        catalog("pocuss")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"access": "perhaps"}, "access"),
        ({"homepage": "http://insecure.example"}, "no https address"),
        ({"licens": "x"}, "licens"),
        ({"access": "form", "steps": []}, "needs the steps"),
        ({"name": "other-name"}, "named for another source"),
    ],
)
def test_an_entry_that_breaks_the_schema_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    values = ENTRIES["pocus"].model_dump(mode="json") | change
    (tmp_path / "pocus.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=reason):
        load_entry(tmp_path / "pocus.yaml")


def test_the_terminal_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_entries(list(ENTRIES.values()), Console(width=80))
    for entry in ENTRIES.values():
        print_entry(entry, Console(width=80))
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert all(f"\n {name} " in out for name in ENTRIES)


def test_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "usdata", "catalog", "us4", "--json"], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)
    assert entry["expected"]["videos"] == 1051
