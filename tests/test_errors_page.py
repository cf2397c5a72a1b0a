"""docs/errors.md is that of the code, and every error names what it is about, the reason, and what to do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from usdata.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_page", REPOSITORY / "docs" / "errors.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["errors_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_code(generator: ModuleType) -> None:
    assert (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8") == generator.page(), "run: python docs/errors.py"


def test_every_error_has_subject_reason_and_advice_on_one_line(generator: ModuleType) -> None:
    found = generator.all_errors()
    assert len(found) > 500
    for told in found:
        where = f"{told.module}:{told.line}: {told.parts}"
        assert len(told.parts) == 3, where
        assert all(part.strip() for part in told.parts), where
        assert "\n" not in "".join(told.parts), where
        assert not any(part.endswith(".") and not part.endswith("...") for part in told.parts[1:]), where


def test_templates_follow_names_to_their_texts(generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error that is raised for real: the page's row is its text but for what was known only then."""
    code = """
ADVICE = "give another"

def refuse(path, count):
    reason = f"holds {count} clips" if count else "is empty"
    raise UserError(path, reason, ADVICE)
"""
    (tmp_path / "usdata").mkdir()
    (tmp_path / "uscl").mkdir()
    (tmp_path / "usdata" / "module.py").write_text(code)
    monkeypatch.setattr(generator, "REPOSITORY", tmp_path)
    (told,) = generator.all_errors()
    assert told.parts == ("‹path›", "holds ‹count› clips / is empty", "give another")
    names: dict[str, object] = {"UserError": UserError}
    exec(code, names)
    with pytest.raises(UserError) as caught:
        names["refuse"]("a", 0)  # type: ignore[operator]
    assert str(caught.value) == "a: is empty; give another"
