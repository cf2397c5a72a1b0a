"""Configurations: the paper's settings by default, named presets, and one clear line for every wrong key or value."""

from __future__ import annotations

from pathlib import Path

import pytest

from uscl.config import Config, config_yaml, differences, flat, load_config, recipe_names
from usdata.errors import RecipeError


def test_the_default_is_the_papers_setting() -> None:
    config = load_config("uscl")
    assert config == Config()
    paper = {
        "backbone": "resnet18",
        "epochs": 300,
        "batch_size": 32,
        "image_size": 224,
        "learning_rate": 3e-4,
        "weight_decay": 1e-4,
        "temperature": 0.5,
        "labels.weight": 0.2,
        "labels.classifier_on": "features",
        "pairs.order": "mix-then-augment",
        "pairs.alpha": 0.5,
        "schedule.constant_epochs": 10,
        "augment.scale": [0.8, 1.0],
        "augment.ratio": [0.8, 1.25],
        "augment.brightness": 0.8,
    }
    settings = flat(config.model_dump(mode="json"))
    assert {key: settings[key] for key in paper} == paper


def test_presets_differ_from_the_paper_where_their_sources_do() -> None:
    assert set(recipe_names()) >= {"uscl", "uscl-published", "ppi", "simclr"}
    changed = {name: {line.split(" ")[0] for line in differences(Config(), load_config(name))} for name in recipe_names()}
    assert changed["uscl-published"] == {
        "pairs.order",
        "pairs.coefficients",
        "pairs.distinct_groups",
        "labels.classifier_on",
        "schedule.cosine_epochs",
    }
    assert changed["ppi"] == {"pairs.policy", "pairs.alpha", "pairs.beta", "labels.weight"}
    assert changed["meta-uscl"] == changed["ppi"] | {"method", "meta.rate"}
    assert changed["simclr"] == {"pairs.policy", "labels.weight"}


def test_a_resolved_configuration_reads_back_to_itself(tmp_path: Path) -> None:
    config = load_config("ppi", ["pairs.max_distance_s=0.5", "pairs.splits=[train, val]", "store.size=96", "learning_rate=1e-3"])
    assert config.pairs.max_distance_s == 0.5
    assert config.learning_rate == 1e-3
    assert config.store_size == 96
    (tmp_path / "again.yaml").write_text(config_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config
    assert load_config(tmp_path / "again.yaml").digest == config.digest
    assert load_config("ppi").digest != config.digest


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batchsize=3", "--set batchsize=3: 'batchsize' is no key of a training recipe; did you mean 'batch_size'"),
        ("pairs.polcy=uscl", r"pairs\.polcy.*did you mean 'pairs\.policy'"),
        ("batch_size=0", "--set batch_size=0: 'batch_size' is 0.*allowed: a whole number >= 1"),
        ("batch_size=many", "'batch_size' is 'many'"),
        ("pairs.policy=three", r"'pairs\.policy' is 'three'.*allowed: uscl, same-frame, ppi"),
        ("augment.scale=[1, 0.5]", r"augment\.scale is \[1\.0, 0\.5\].*the smaller first"),
        ("augment.scale=3", r"'augment\.scale' is 3.*two numbers"),
        ("pairs=3", "'pairs' is 3"),
        ("device=tpu", "allowed: auto, cpu, cuda"),
        ("learning_rate=.nan", "finite"),
        ("pairs.splits=[foo]", r"--set pairs\.splits=\[foo\]: 'pairs\.splits\.0' is 'foo'"),
        ("pairs.max_distance_s=1", r"pairs\.max_distance_s needs pairs\.policy=ppi, within-seconds or hard-negatives, and it is uscl"),
        ("seed=-1", "'seed' is -1"),
        ("pairs.a.b=1", r"--set pairs\.a\.b=1: 'pairs\.a' is no key"),
        ("nothing", "has no '='"),
        ("seed=[", "no YAML"),
    ],
)
def test_what_is_wrong_with_an_override_is_said_in_one_line(override: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        load_config("uscl", [override])
    assert "\n" not in str(caught.value)


def test_wrong_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'uscl'"):
        load_config("usc")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    for text, words in (("[1, 2]", "keys and values"), ("a: [", "no readable YAML"), ("bacth_size: 3", "did you mean 'batch_size'")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(RecipeError, match=words):
            load_config(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_config(tmp_path / "bad.yaml")


def test_every_setting_says_what_it_means() -> None:
    def undescribed(model: type, prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(prefix + name)
            if hasattr(field.annotation, "model_fields"):
                found += undescribed(field.annotation, f"{prefix}{name}.")
        return found

    assert undescribed(Config) == []
