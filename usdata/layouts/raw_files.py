"""The files under RAW, those in archives too, and what each is by its content.

In: a folder. Out: sorted relative paths with their kinds, and everything that cannot be read with the reason. Nothing is skipped silently.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

from usdata.errors import ReadError
from usdata.readers import data_files
from usdata.readers.archives import head_as_file, list_members
from usdata.readers.identify import ARCHIVE_KINDS, CLIP_KINDS, KNOWN_BUT_UNREAD, STILL_KINDS, identify
from usdata.readers.naming import find_sequences


class RawFiles:
    """The files under RAW (or one of them alone) and in its archives, and what each is by its content.

    Attributes:
        paths: Relative to RAW, sorted. A zip or tar stands for the folder that it holds: `clips.zip/patient 1/a.dcm`.
        odd: What cannot be read as a file or looked into, with the reason.
        unreadable: Those among `paths` and `odd` that are there and failed, with the reason.
        archives: The archives that were looked into.
    """

    def __init__(self, raw: Path, *, only: str | None = None) -> None:
        self._raw = raw
        self._kinds: dict[str, str] = {}
        self.unreadable: dict[str, str] = {}
        self.archives: set[str] = set()
        files, self.odd = _walk(raw) if only is None else ([only], {})
        inside = []
        for path in files:
            if self[path] in ARCHIVE_KINDS:
                inside += self._looked_into(path)
        # An archive is accounted for by its members, a broken one by itself.
        self.paths = sorted({path for path in files if path not in self.archives and path not in self.odd} | set(inside))

    def _looked_into(self, archive: str) -> list[str]:
        try:
            members = list_members(self._raw / archive)
        except ReadError as error:
            self.odd[archive] = self.unreadable[archive] = error.reason
            return []
        self.archives.add(archive)
        found = []
        for member in members:
            path = f"{archive}/{member.name}"
            if member.reason is None:
                self._kinds[path] = member.kind
                found.append(path)
            else:
                self.odd[path] = self.unreadable[path] = member.reason
        return found

    def __getitem__(self, path: str) -> str:
        if path not in self._kinds:
            try:
                self._kinds[path] = identify(self._raw / path)
            except OSError as error:
                self._kinds[path] = "unreadable"
                self.unreadable[path] = f"cannot be read ({error.strerror})"
        return self._kinds[path]

    def is_clip(self, path: str) -> bool:
        """A clip, or what claims to be one: reading it will tell."""
        return self[path] in CLIP_KINDS or self[path] in KNOWN_BUT_UNREAD or self[path] == "empty"

    def companions(self, path: str) -> tuple[str, ...]:
        """The files that a header file refers to, those that are there: reading it will say what is missing."""
        if self[path] not in ("metaimage", "nrrd"):
            return ()
        folder = PurePosixPath(path).parent
        try:
            with head_as_file(self._raw / path) as file:
                named = [str(folder / name) for name in data_files(file)]
        except ReadError:  # the clip's own row will give the reason
            return ()
        return tuple(name for name in named if name != path and name in self.present)

    @cached_property
    def sequences(self) -> dict[str, tuple[str, ...]]:
        """Numbered images of one folder: `scan/left_#.png` to the images in order."""
        stills = [path for path in self.paths if self[path] in STILL_KINDS]
        return {pattern: tuple(images) for pattern, images in find_sequences(stills).items()}

    @cached_property
    def folders(self) -> dict[str, tuple[str, ...]]:
        """Each folder with images directly in it, and those."""
        return images_by_folder(self.paths, self)

    @cached_property
    def present(self) -> frozenset[str]:
        """`paths`, for looking one up."""
        return frozenset(self.paths)

    def why_not_a_clip(self, path: str) -> str:
        """The reason for a row that no source names."""
        if path in self.odd:
            return self.odd[path]
        if self.is_clip(path):
            return "no source of the recipe names it"
        if path in self.unreadable:
            return self.unreadable[path]
        if self[path] in ARCHIVE_KINDS:
            return "an archive within an archive, which is not unpacked"
        return f"not ultrasound media ({self[path]})"


def _walk(raw: Path) -> tuple[list[str], dict[str, str]]:
    """The regular files under a folder in order, and everything else there with the reason why it is not read."""
    files: list[str] = []
    odd: dict[str, str] = {}

    def note(error: OSError) -> None:
        odd[Path(error.filename).relative_to(raw).as_posix()] = f"the folder cannot be listed ({error.strerror})"

    for folder, folders, names in os.walk(raw, onerror=note):
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            inside = path.relative_to(raw).as_posix()
            try:
                inside.encode("utf-8")
            except UnicodeEncodeError:
                # No text column can hold such a name, so the row says where it is as nearly as text can.
                odd[os.fsencode(inside).decode("utf-8", "replace")] = "its name is not UTF-8: rename it"
                folders[:] = [folder for folder in folders if folder != name]
                continue
            if name in folders:
                if path.is_symlink():
                    odd[inside] = "a link to a folder, which is not followed: put the folder itself under the raw folder"
            elif path.is_file():
                files.append(inside)
            else:
                odd[inside] = "a broken link" if path.is_symlink() else "neither a file nor a folder"
    return sorted(files), odd


def images_by_folder(files: Iterable[str], kinds: RawFiles) -> dict[str, tuple[str, ...]]:
    """Each folder with images directly in it, and those; hidden ones are left out, as the reader leaves them."""
    found: dict[str, list[str]] = {}
    for path in files:
        place = PurePosixPath(path)
        if not place.name.startswith(".") and kinds[path] in STILL_KINDS:
            found.setdefault(str(place.parent), []).append(path)
    return {folder: tuple(found[folder]) for folder in sorted(found)}
