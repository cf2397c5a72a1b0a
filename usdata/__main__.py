"""`python -m usdata`."""

from usdata.cli import app

app()
