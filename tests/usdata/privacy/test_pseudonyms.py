"""Pseudonyms: the standard's HMAC, separate by name space, refused without a secret."""

import hmac
from pathlib import Path

import pytest

from usdata.errors import UserError
from usdata.privacy.pseudonyms import pseudonym, read_secret

SECRET = b"a secret of more than sixteen bytes"


def test_it_is_hmac_sha256() -> None:
    expected = hmac.digest(SECRET, b"14:clinic/patientP-0042", "sha256").hex()[:20]
    assert pseudonym("P-0042", secret=SECRET, name_space="clinic/patient") == expected


def test_name_spaces_and_secrets_separate() -> None:
    made = {pseudonym("7", secret=secret, name_space=space) for secret in (SECRET, SECRET * 2) for space in ("a", "b")}
    assert len(made) == 4


def test_no_secret_and_short_secrets_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("USDATA_SECRET", raising=False)
    monkeypatch.delenv("USDATA_SECRET_FILE", raising=False)
    with pytest.raises(UserError, match="make one with"):
        read_secret()
    monkeypatch.setenv("USDATA_SECRET", "short")
    with pytest.raises(UserError, match="shorter than 16"):
        read_secret()
    monkeypatch.delenv("USDATA_SECRET")
    monkeypatch.setenv("USDATA_SECRET_FILE", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="cannot be read"):
        read_secret()
    (tmp_path / "missing").write_bytes(SECRET + b"\n")
    assert read_secret() == SECRET
