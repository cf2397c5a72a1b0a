"""Key frames: evenly taken in the pass, cut to the field of view, dark ones left out, read back as written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.usdata.duplicates.scans import scan
from usdata.duplicates.key_frames import MOST_KEY_FRAMES, SIDE, as_strip, cut, key_frames_of, lit_box, read_key_frames
from usdata.errors import DataSetError
from usdata.imaging.evidence import MOST_FRAMES, EvidenceCollector
from usdata.imaging.geometry import Rectangle


def collected(pictures: np.ndarray, expected: int | None = None) -> EvidenceCollector:
    collector = EvidenceCollector(expected)
    for number, picture in enumerate(pictures):
        collector.offer(picture, lambda picture=picture: picture, 2 * number)  # type: ignore[misc]
    return collector


@pytest.mark.parametrize("expected", [None, 3, 50, 400])
@pytest.mark.parametrize("frames", [1, 5, 24, 25, 47, 48, 49, 96, 97, 200, 333])
def test_they_are_evenly_taken_and_twice_the_sample(frames: int, expected: int | None) -> None:
    pictures = np.zeros((frames, 8, 8), np.uint8) + np.arange(frames, dtype=np.uint8)[:, None, None]
    collector = collected(pictures, expected)
    indices, kept = collector.key_frames
    positions = [index // 2 for index in indices]
    steps = set(np.diff(positions).tolist())
    assert len(steps) <= 1
    assert positions[0] == 0
    assert [int(picture[0, 0]) for picture in kept] == [position % 256 for position in positions]
    step = steps.pop() if steps else 1
    assert step & (step - 1) == 0
    assert frames - positions[-1] <= step or len(positions) == 1
    assert len(kept) <= MOST_KEY_FRAMES == 2 * MOST_FRAMES
    sample = [int(picture[0, 0]) for picture in collector.frames]
    # Where the length was overrated, the sample begins with a stride.
    ways = [positions] if len(positions) <= MOST_FRAMES and step == 1 and expected is None else [positions, positions[::2]]
    assert sample in [[position % 256 for position in way] for way in ways]
    assert len(sample) <= MOST_FRAMES


def test_they_are_the_field_of_view_and_nothing_else() -> None:
    pictures = np.full((6, 300, 400), 200, np.uint8)  # bright surroundings
    pictures[:, 50:250, 100:340] = scan(0, 6)
    found = key_frames_of(collected(pictures), Rectangle(100, 50, 240, 200), "ward/a")
    assert found is not None
    assert found.video_id == "ward/a"
    assert found.frame_index.tolist() == [0, 2, 4, 6, 8, 10]
    x, y, width, height = found.box
    assert abs(x - 100) <= 2
    assert abs(y - 50) <= 2
    assert abs(width - 240) <= 4
    assert abs(height - 200) <= 4
    expected = cv2.resize(scan(0, 6)[3], (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(float)
    assert np.corrcoef(expected.ravel(), found.pictures[3].ravel().astype(float))[0, 1] > 0.97
    np.testing.assert_allclose(found.mean, found.pictures.astype(float).mean(axis=0), rtol=1e-5)


def test_without_one_they_are_what_is_lit() -> None:
    pictures = np.zeros((4, 240, 300), np.uint8)
    pictures[:, 20:220, 30:270] = scan(1, 4)
    found = key_frames_of(collected(pictures), None)
    assert found is not None
    assert found.box == (30, 20, 240, 200)
    speck = np.zeros((60, 80), np.uint8)
    speck[10:30, 20:70] = 90
    speck[5, 3] = 255  # a speck is no part of the picture
    assert lit_box(speck) == (20, 10, 50, 20)
    assert lit_box(np.zeros((60, 80), np.uint8)) == (0, 0, 80, 60)


def test_dark_and_flat_frames_are_left_out() -> None:
    pictures = scan(2, 5)
    pictures[1] = 0
    pictures[3] = 90
    pictures[4] = pictures[4] // 30 + 60
    places, kept = cut(list(pictures), (0, 0, 240, 200))
    assert places == [0, 2]
    assert kept.shape == (2, SIDE, SIDE)
    assert key_frames_of(collected(pictures[[1, 1]]), None) is None
    assert key_frames_of(EvidenceCollector(), None) is None


def test_they_come_back_as_they_were_written(tmp_path: Path) -> None:
    _, kept = cut(list(scan(3, 7)), (0, 0, 240, 200))
    cv2.imwrite(str(tmp_path / "strip.png"), as_strip(kept))
    row = {"video_id": "a", "key_frames_path": "strip.png", "key_frames": list(range(7)), "key_frames_box": [1, 2, 240, 200]}
    found = read_key_frames(tmp_path, row)
    assert found is not None
    np.testing.assert_array_equal(found.pictures, kept)
    assert (found.box, found.frame_index.tolist()) == ((1, 2, 240, 200), list(range(7)))
    assert read_key_frames(tmp_path, row | {"key_frames_path": None}) is None
    with pytest.raises(DataSetError, match="not those that were written"):
        read_key_frames(tmp_path, row | {"key_frames": [0, 1]})
    with pytest.raises(DataSetError, match="is missing"):
        read_key_frames(tmp_path, row | {"key_frames_path": "none.png"})


def test_bars_and_words_around_a_picture_do_not_move() -> None:
    pictures = np.full((8, 240, 320), 60, np.uint8)  # gray bars
    for picture in pictures:
        cv2.putText(picture, "RELEASED BY", (40, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)
    pictures[:, 30:230, 60:300] = scan(4, 8)
    found = key_frames_of(collected(pictures), None)
    assert found is not None
    x, y, width, height = found.box
    assert abs(x - 60) <= 4
    assert abs(y - 30) <= 4
    assert abs(width - 240) <= 8
    assert abs(height - 200) <= 8
    still = np.repeat(pictures[:1], 8, axis=0)
    found = key_frames_of(collected(still), None)
    assert found is not None
    assert found.box == (0, 0, 320, 240)


def test_what_is_painted_over_and_the_margin_of_a_release_are_black() -> None:
    pictures = scan(5, 6)
    letters = np.zeros(pictures.shape[1:], np.uint8)
    cv2.putText(letters, "DOE JOHN", (60, 110), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    around = ((30, 30), (30, 30))
    ink = np.pad(letters > 0, around)
    marked = np.pad(np.where(letters > 0, np.uint8(255), pictures), ((0, 0), *around))
    shape = Rectangle(30, 30, 240, 200)
    plain = key_frames_of(collected(marked), shape)
    hidden = key_frames_of(collected(marked), shape, hidden=ink, margin=8)
    assert plain is not None
    assert hidden is not None
    small = cv2.resize(letters, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 200
    assert plain.mean[small].mean() > plain.mean[~small].mean() + 20
    assert hidden.pictures[:, small].max() <= 20, "not a stroke is left"
    assert hidden.pictures[:, :, 0].max() <= 10, "the edge is black"


def test_the_dark_end_of_a_scan_is_left_out() -> None:
    pictures = np.zeros((6, 300, 240), np.uint8)
    pictures[:, :200] = scan(6, 6)
    found = key_frames_of(collected(pictures), Rectangle(0, 0, 240, 300))
    assert found is not None
    assert found.box[:3] == (0, 0, 240)
    assert abs(found.box[3] - 200) <= 2
