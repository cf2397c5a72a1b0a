"""Reading back what a data set stores: the pixels of an image that a table names.

In: the data set's folder and a path of its tables. Out: the gray picture. Guarantees: nothing outside of the folder is read, also not
through a link, and a missing or damaged file is told in one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from usdata.errors import DataSetError
from usdata.manifest import is_inside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AGAIN = "build the set again with --overwrite: what is there stays"


def stored_pixels(folder: Path, relative: str, *, pixel_sha256: str | None = None) -> NDArray[np.uint8]:
    """The pixels of a stored image, (H, W) uint8.

    Args:
        folder: The data set.
        relative: The image's path, as a table has it.
        pixel_sha256: What the manifest says of the pixels; None: nothing to hold them against.

    Raises:
        DataSetError: The path leaves the folder, the file is missing or no readable image, or its pixels are other ones.
    """
    import cv2
    import numpy as np

    from usdata.duplicates.fingerprints import pixel_digest

    path = folder / relative
    if not is_inside(relative) or not path.resolve().is_relative_to(folder.resolve()):
        raise DataSetError(relative, "this path of the tables leaves the data set", "nothing was read; ask whoever made the set")
    if not path.is_file():
        raise DataSetError(path, "this image is missing", AGAIN)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if pixels is None:
        raise DataSetError(path, "is no readable image", f"remove it and {AGAIN}")
    if pixel_sha256 is not None and pixel_digest(np.asarray(pixels, np.uint8)) != pixel_sha256:
        raise DataSetError(path, "is damaged or another image: its pixels are not those of the manifest", f"remove it and {AGAIN}")
    return np.asarray(pixels, np.uint8)
