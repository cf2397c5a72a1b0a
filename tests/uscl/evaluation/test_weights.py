"""Words for weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from uscl.evaluation.weights import _parted, architectures, result_names


def test_an_architecture_alone_is_its_published_weights() -> None:
    words = ["timm/resnet18", "resnet50", "random", "timm/resnet18:random", "imagenet"]
    assert architectures(words) == [
        ("timm/resnet18", "imagenet"),
        ("resnet50", "imagenet"),
        ("resnet18", "random"),
        ("timm/resnet18", "random"),
        ("resnet18", "imagenet"),
    ]
    assert result_names(words) == words


def test_a_path_of_that_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet50").mkdir()
    assert _parted("resnet50") == ("", "resnet50")
    assert _parted("resnet34") == ("resnet34", "imagenet")
