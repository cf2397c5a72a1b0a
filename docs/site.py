"""Build the pages of docs/ as a site: `python docs/site.py`, or `make docs`. A link or an anchor that leads nowhere stops it.

Zensical's setting for sites that open from the disk puts one script of unpkg.com into each page. It is exchanged for our own beside the
pages, so that nothing is loaded from a network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOREIGN = '<script src="https://unpkg.com/iframe-worker/shim" type="text/javascript"></script>'
OURS = "style/local-search.js"


def build(folder: Path) -> int:
    """Build `folder`/site from `folder`/docs and `folder`/zensical.toml.

    Returns:
        The exit code of Zensical: 0, or 1 where a page is wrong, which it tells.
    """
    code = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=folder).returncode
    if code:
        return code
    site = folder / "site"
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        to = os.path.relpath(site / OURS, page.parent)
        page.write_text(text.replace(FOREIGN, f'<script src="{to}"></script>'), encoding="utf-8")
    for page in site.rglob("*.py"):
        page.unlink()
    return 0 if (site / OURS).exists() else 1


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY))
