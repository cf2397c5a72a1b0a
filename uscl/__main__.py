"""`python -m uscl`."""

from uscl.cli import app

app()
