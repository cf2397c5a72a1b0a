"""What holds for the house as a whole: imports point one way, commands start fast, pages match the code, nothing names a machine."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_WITH_USCL = tuple(f"usdata.{name}" for name in ("manifest", "duplicates", "errors", "console", "files", "signals", "abilities"))
HEAVY = ("torch", "torchvision", "cv2", "av", "decord", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib")


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" if node.module == "usdata" else node.module for name in node.names}
    return found


def test_imports_point_one_way() -> None:
    for path in sorted((REPOSITORY / "uscl").rglob("*.py")):
        for module in imported_modules(path):
            if module.startswith("usdata"):
                assert module.startswith(SHARED_WITH_USCL), f"{path.name} imports {module}"
    for path in sorted((REPOSITORY / "usdata").rglob("*.py")):
        assert not any(module.split(".")[0] == "uscl" for module in imported_modules(path)), path


def test_only_one_module_imports_torchvision() -> None:
    importers = [
        path.name
        for path in sorted((REPOSITORY / "uscl").rglob("*.py"))
        if any(module.split(".")[0] == "torchvision" for module in imported_modules(path))
    ]
    assert importers == ["torchvision_compat.py"]


@pytest.mark.parametrize("program", ["usdata", "uscl"])
def test_help_loads_nothing_heavy_and_is_fast(program: str) -> None:
    code = f"import sys; from {program}.cli import app; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert loaded.stdout.strip() == "[]"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", program, "--help"], capture_output=True, check=True, cwd=REPOSITORY)
        times.append(time.perf_counter() - start)
    # Half a second on an idle machine; the bound allows for a busy one.
    assert min(times) < 2.0


@pytest.mark.parametrize("program", ["usdata", "uscl"])
def test_every_verb_has_two_examples_in_its_help(program: str) -> None:
    from typer.main import get_command

    app = __import__(f"{program}.cli", fromlist=["app"]).app
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    assert verbs
    for name, verb in verbs.items():
        examples = re.findall(rf"^ *{program} {name}\b", verb.help or "", flags=re.MULTILINE)
        assert len(examples) >= 2, f"{program} {name}"


@pytest.mark.parametrize("program", ["usdata", "uscl"])
def test_tab_offers_the_functions_and_nothing_else(program: str) -> None:
    module = __import__(program)
    assert dir(module) == sorted(module.__all__)
    assert {"usdata": "load", "uscl": "evaluate"}[program] in dir(module)


def test_contract_pages_are_those_of_the_code() -> None:
    sys.path.insert(0, str(REPOSITORY / "docs" / "contracts"))
    try:
        from generate import PAGES  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    for name, page in PAGES.items():
        message = "run: python docs/contracts/generate.py"
        assert (REPOSITORY / "docs" / "contracts" / name).read_text(encoding="utf-8") == page(), message


def test_the_architecture_names_every_module() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in ("usdata", "uscl"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if path.name not in {"__init__.py", "__main__.py"}:
                assert path.name in page, f"docs/architecture.md lacks {path.relative_to(REPOSITORY)}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*REPOSITORY.glob("*.md"), *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page.relative_to(REPOSITORY)} links to {target}"


def test_every_version_is_pinned() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^+\s]+", line) for line in lines)
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(lines)


def test_no_function_of_the_package_is_hidden_by_a_module_of_its_name() -> None:
    """`usdata.catalog` must stay a function, also once something has imported a module of that name."""
    for package in ("usdata", "uscl"):
        names = set(__import__(package).__all__)
        modules = {
            path.stem if path.suffix else path.name for path in (REPOSITORY / package).iterdir() if path.suffix == ".py" or path.is_dir()
        }
        assert not names & modules
