"""The shipped recipes: each loads, names a known method and says what it is; the list fits a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uscl.cli import app
from uscl.config import load_config, recipe_names
from uscl.methods import METHODS, check_uses, find_method
from uscl.recipe_list import RecipeRow, list_recipes, print_recipes


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_loads_and_can_be_copied(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.method in METHODS
    check_uses(config, find_method(config.method))
    printed = CliRunner().invoke(app, ["recipes", name])
    assert printed.exit_code == 0
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    assert load_config(tmp_path / "mine.yaml") == config
    assert json.loads(CliRunner().invoke(app, ["recipes", name, "--json"]).stdout) == config.model_dump(mode="json")


def test_the_list_is_whole_and_fits_a_terminal() -> None:
    rows = list_recipes()
    assert [row.name for row in rows] == recipe_names()
    assert all(row.paper for row in rows if row.name != "demo")
    lines = CliRunner().invoke(app, ["recipes"]).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == recipe_names()
    listed = json.loads(CliRunner().invoke(app, ["recipes", "--json"]).stdout)
    expected = {"name": "simclr", "title": "SimCLR", "paper": "Chen et al., ICML 2020, arXiv 2002.05709", "method": "uscl"}
    assert [{key: each[key] for key in expected} for each in listed if each["name"] == "simclr"] == [expected]


def test_columns_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    print_recipes(
        [
            RecipeRow(
                "one", "First", "Somebody et al., A Long Venue 2020, arXiv 1234.56789", "a sentence that needs more than one line " * 2, "a"
            ),
            RecipeRow("second", "Second", None, "short", "b"),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    starts = {line.index(word) for line in lines for word in ("First:", "line a", "Second:") if word in line}
    assert starts == {8}
    assert next(line.index("Somebody") for line in lines if "Somebody" in line) == 80 - 22
    assert max(map(len, lines)) <= 80


def test_an_unknown_name_is_one_line() -> None:
    done = CliRunner().invoke(app, ["recipes", "simcrl"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "did you mean 'simclr'?" in done.stderr
