"""Recipes: found by name, overridden, and refused in one line that names the key."""

from pathlib import Path

import pytest

from usdata.errors import RecipeError
from usdata.recipe_files import load_recipe, shipped_recipes


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


MINIMAL = "name: mine\nsources:\n  - {name: mine, layout: files}\n"


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_validates_and_bears_its_own_name(name: str) -> None:
    assert load_recipe(name).name == name


def test_the_recipes_that_the_readme_names_are_shipped() -> None:
    assert {"phantom", "pocus-lung", "pocus-convex", "covid-blues"} <= shipped_recipes().keys()


def test_a_misspelt_fact_is_named_with_the_nearest(tmp_path: Path) -> None:
    for wrong, key in (("columns: {path: p, patinet: q}, table: t.csv", "patient"), ("layout: files, constants: {orgn: lung}", "organ")):
        with pytest.raises(RecipeError, match=f"unknown key .*did you mean '{key}'"):
            load_recipe(write(tmp_path, f"name: mine\nsources:\n  - {{name: mine, {wrong}}}\n"))


@pytest.mark.parametrize(
    ("text", "key", "advice"),
    [
        (MINIMAL + "fold: {count: 3}\n", "'fold'", "did you mean 'folds'?"),
        (MINIMAL + "folds: {cuont: 3}\n", "'folds.cuont'", "did you mean 'count'?"),
        (
            "name: mine\nsources:\n  - {name: mine, layout: files, samplin: {rule: all}}\n",
            "'sources.0.samplin'",
            "did you mean 'sampling'?",
        ),
        ("name: m\nsources:\n  - {name: m, layout: files, sampling: {rule: rate, hertz: 3}}\n", "'sources.0.sampling.hertz'", "hz"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(tmp_path: Path, text: str, key: str, advice: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text))
    line = str(caught.value)
    assert key in line
    assert advice in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n- 2\n", "holds no recipe"),
        ("name: [\n", "no readable YAML"),
        ("name: mine\nsources: []\n", "sources"),
        ("name: mine\nsources:\n  - {name: mine}\n", "layout 'table' needs"),
        ("name: mine\nsources:\n  - {name: 'a/b', layout: files}\n", "letters, digits"),
        ("name: mine\nsources:\n  - {name: mine, layout: files, root: ../elsewhere}\n", "below RAW"),
        ("name: mine\nsources:\n  - {name: mine, layout: files, pattern: '('}\n", "regular expression"),
        ("name: mine\nsources:\n  - {name: mine, layout: files, pattern: '(?P<patent>x)'}\n", "did you mean 'patient'?"),
        ("name: mine\nsources:\n  - {name: a, layout: files}\n  - {name: a, layout: files}\n", "same name"),
        (MINIMAL + "folds: {count: many}\n", "folds.count"),
        (MINIMAL + "split: {val: 0.6, test: 0.6}\n", "leave something for train"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_comes_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="did you mean 'pocus-lung'"):
        load_recipe("pocus-lungs")


def test_overrides_are_yaml_and_reach_into_lists() -> None:
    recipe = load_recipe("phantom", ["folds.count=3", "sources.0.sampling={rule: count, count: 7}", "image.max_side=64"])
    assert (recipe.folds.count, recipe.sources[0].sampling.count, recipe.image.max_side) == (3, 7, 64)


@pytest.mark.parametrize("override", ["folds.count", "sources.7.name=x", "name.below=1", "folds.cuont=3"])
def test_a_wrong_override_is_refused(override: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe("phantom", [override])


def test_a_base_is_merged_by_source_name_and_a_circle_is_refused(tmp_path: Path) -> None:
    convex = load_recipe("pocus-convex")
    assert convex.sources[0].table == "labels.csv"
    assert len(convex.sources[0].exclude) == 3
    circle = write(tmp_path, f"name: mine\nbase: {tmp_path / 'recipe.yaml'}\n")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(circle)


def test_a_base_is_found_beside_its_recipe_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "base.yaml").write_text(MINIMAL)
        (tmp_path / folder / "recipe.yaml").write_text("base: base.yaml\nfolds: {count: 2}\n")
    monkeypatch.chdir("/")
    one, two = (load_recipe(tmp_path / folder / "recipe.yaml") for folder in ("one", "two"))
    assert one.digest == two.digest
    assert str(tmp_path) not in one.model_dump_json()


def test_the_digest_follows_what_the_recipe_means_and_not_how_it_is_written(tmp_path: Path) -> None:
    plain = load_recipe(write(tmp_path, MINIMAL))
    same = load_recipe(write(tmp_path, "# a remark\nsources: [{layout: files, name: mine}]\nname: mine\nfolds: {count: 5}\n"))
    other = load_recipe(write(tmp_path, MINIMAL + "folds: {count: 4}\n"))
    assert plain.digest == same.digest != other.digest


def test_included_recipes_give_their_sources_alone_and_they_can_be_changed_by_name(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "name: one\nsources: [{name: a, layout: files, root: a, constants: {organ: lung}}]\nfolds: {count: 3}\n"
    )
    (tmp_path / "two.yaml").write_text("name: two\ninclude: [one.yaml]\nsources: [{name: b, layout: files, root: b}]\n")
    recipe = load_recipe(
        write(tmp_path, "name: all\ninclude: [two.yaml]\nsources: [{name: a, optional: true}, {name: c, layout: files}]\n")
    )
    assert [(source.name, source.root, source.optional) for source in recipe.sources] == [
        ("a", "a", True),
        ("b", "b", False),
        ("c", ".", False),
    ]
    assert recipe.sources[0].constants == {"organ": "lung"}
    assert recipe.folds.count == 5, "of another recipe its sources alone are taken in"


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ("one", "is no list of recipes"),
        ("[us4-clusd]", "did you mean 'us4-clust'?"),
        ("[recipe.yaml]", "leads back to itself"),
        ("[one.yaml, other.yaml]", "two of the recipes that it includes have a source 'a'"),
    ],
)
def test_what_cannot_be_included_is_told(include: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: one\nsources: [{name: a, layout: files}]\n")
    (tmp_path / "other.yaml").write_text("name: other\nsources: [{name: a, layout: files, root: b}]\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, f"name: x\ninclude: {include}\n"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("layout: clusd", "'sources.0.layout'"),
        ("layout: files, asides: [{pattern: '(', reason: x}]", "asides.pattern is no regular expression"),
        ("layout: files, facts_file: '{patinet}.cfg'", "did you mean 'patient'?"),
        ("layout: echonet, path_template: Videos", "needs '{}' once"),
        ("layout: files, sampling: {rule: novelty}", "needs 'below'"),
        ("layout: files, sampling: {rule: rate, hz: 3, least_gap_s: 1}", "'least_gap_s' does not belong to rule 'rate'"),
        ("layout: files, sampling: {rule: novelty, below: 0.9, least_gap_s: 2, greatest_gap_s: 1}", "longer than 'greatest_gap_s'"),
    ],
)
def test_wrong_keys_of_layouts_and_sampling_are_named(keys: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, f"name: x\nsources: [{{name: a, {keys}}}]\n"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "subject"),
    [
        ("folds.cnt=3", "--set folds.cnt=3: unknown key 'folds.cnt'; did you mean 'count'?"),
        ("fold.count=3", "--set fold.count=3: unknown key 'fold'; did you mean 'folds'?"),
        ("folds.count=three", "--set folds.count=three: 'folds.count'"),
        ("sources.0.sampling.hz=-1", "--set sources.0.sampling.hz=-1: "),
    ],
)
def test_a_wrong_override_is_blamed_and_not_the_file(override: str, subject: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("phantom", ["split.test=0.5", override])
    assert str(caught.value).startswith(subject)


def test_a_wrong_file_is_blamed_whatever_is_overridden(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nfolds: {cnt: 3}\nsources: [{name: mine, layout: files}]\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "mine.yaml", ["split.test=0.5"])
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: unknown key 'folds.cnt'")
