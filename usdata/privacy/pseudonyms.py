"""Pseudonyms for patients: keyed, per name space, and refused where no key is at hand.

A plain hash of a record number can be found again by hashing every number there is, so identifiers are replaced by HMAC-SHA256 under a
secret that stays with the person who builds the set. Without a secret nothing private is read into a manifest at all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from usdata.errors import UserError

SECRET_VARIABLE = "USDATA_SECRET"
SECRET_FILE_VARIABLE = "USDATA_SECRET_FILE"
MINIMUM_SECRET_LENGTH = 16
PSEUDONYM_DIGITS = 20  # 80 bits: no collisions among any number of patients that a data set can hold


def read_secret() -> bytes:
    """The secret from the environment, or from the file that the environment names.

    Raises:
        UserError: There is none, or it is too short to protect anyone.
    """
    how = f"make one with: python3 -c 'import secrets; print(secrets.token_hex(32))' > secret.txt; export {SECRET_FILE_VARIABLE}=secret.txt"
    if text := os.environ.get(SECRET_VARIABLE):
        secret, subject = text.encode("utf-8").strip(), SECRET_VARIABLE
    elif name := os.environ.get(SECRET_FILE_VARIABLE):
        subject = name
        try:
            secret = Path(name).read_bytes().strip()
        except OSError as error:
            raise UserError(name, f"the secret cannot be read ({error.strerror})", how) from None
    else:
        public = "; or, for ids of a published set alone, write patient_ids: public"
        raise UserError("patient ids", "are private in this recipe, and no secret is set to make pseudonyms with", how + public)
    if len(secret) < MINIMUM_SECRET_LENGTH:
        raise UserError(subject, f"the secret is shorter than {MINIMUM_SECRET_LENGTH} characters", how)
    return secret


def pseudonym(identifier: str, *, secret: bytes, name_space: str) -> str:
    """HMAC-SHA256 of an identifier under a secret, in 20 hexadecimal digits.

    Args:
        identifier: What must not leave.
        secret: The key.
        name_space: Kind of identifier and source; the same identifier has unrelated pseudonyms in two name spaces.
    """
    message = f"{len(name_space)}:{name_space}{identifier}".encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:PSEUDONYM_DIGITS]
