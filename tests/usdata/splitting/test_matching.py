"""Names are matched exactly, then by stem, then without a frame's number; what may mean two clips is ambiguous and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdata.splitting.matching import Names

VIDEOS = {
    "lung/Cov-Atlas-44-_gif-aa12": "videos/convex/Cov-Atlas(44).gif",
    "lung/pat_12_mp4": "videos/pat_12.mp4",
    "lung/one__same_avi": "one/same.avi",
    "lung/two__same_avi": "two/same.avi",
    "lung/1.2.840.99_dcm": "dicom/1.2.840.99.dcm",
    "lung/1.2.840.7_dcm": "dicom/1.2.840.7.dcm",
    "lung/brain_gz": "brain.nii.gz",
}
FRAMES = [
    {
        "frame_id": f"{video}/{index}",
        "video_id": video,
        "frame_index": index,
        "path": f"images/{video}/{video.partition('/')[2]}_frame{index}.png",
    }
    for video in VIDEOS
    for index in (0, 12)
]
ATLAS = "lung/Cov-Atlas-44-_gif-aa12"
CASES = [
    (ATLAS, "exact", ATLAS, None),
    ("Cov-Atlas-44-_gif-aa12", "exact", ATLAS, None),
    ("videos/convex/Cov-Atlas(44).gif", "exact", ATLAS, None),
    ("Cov-Atlas(44).gif", "exact", ATLAS, None),
    ("elsewhere/Cov-Atlas(44).gif", "exact", ATLAS, None),
    (f"{ATLAS}/12", "exact", ATLAS, 12),
    ("Cov-Atlas-44-_gif-aa12_frame12.png", "exact", ATLAS, 12),
    (f"images/{ATLAS}/Cov-Atlas-44-_gif-aa12_frame0.png", "exact", ATLAS, 0),
    ("Cov-Atlas-44-_gif-aa12_frame12.jpg", "stem", ATLAS, 12),
    ("Cov-Atlas(44)", "stem", ATLAS, None),
    ("Cov-Atlas(44).mp4", "stem", ATLAS, None),
    ("covid/Cov-Atlas(44).gif_frame12.jpg", "frame", ATLAS, 12),
    ("covid/Cov-Atlas(44)_frame12.jpg", "frame", ATLAS, 12),
    ("Cov-Atlas(44)-0012.png", "frame", ATLAS, 12),
    ("pat_12", "stem", "lung/pat_12_mp4", None),
    ("pat_12_f0.png", "frame", "lung/pat_12_mp4", 0),
    ("two/same.avi", "exact", "lung/two__same_avi", None),
    ("copy/of/two/same.avi", "exact", "lung/two__same_avi", None),
    ("two/same.mp4", "stem", "lung/two__same_avi", None),
    ("1.2.840.99", "stem", "lung/1.2.840.99_dcm", None),
    ("1.2.840.99.dcm", "exact", "lung/1.2.840.99_dcm", None),
    ("brain", "stem", "lung/brain_gz", None),
    ("brain.nii", "stem", "lung/brain_gz", None),
]


@pytest.fixture(scope="module")
def names() -> Names:
    return Names([{"video_id": video, "path": path} for video, path in VIDEOS.items()], FRAMES)


@pytest.mark.parametrize(("name", "how", "video_id", "frame"), CASES, ids=lambda value: str(value))
def test_a_name_means_one_clip_or_frame(name: str, how: str, video_id: str, frame: int | None, names: Names) -> None:
    match = names.match(name)
    assert (match.how, match.video_id) == (how, video_id)
    assert match.frame_id == (None if frame is None else f"{video_id}/{frame}")
    assert match.whole == (frame is None)


def test_a_frame_that_is_not_held_still_names_its_clip_but_not_all_of_it(names: Names) -> None:
    match = names.match("Cov-Atlas(44).gif_frame777.jpg")
    assert (match.how, match.video_id, match.frame_id, match.whole) == ("frame", ATLAS, None, False)


@pytest.mark.parametrize("name", ["same.avi", "same", "x/same.avi", "same_frame12.png"])
def test_what_may_mean_two_clips_is_ambiguous(name: str, names: Names) -> None:
    match = names.match(name)
    assert (match.how, match.video_id) == ("ambiguous", None)
    assert match.candidates == ("lung/one__same_avi", "lung/two__same_avi")


@pytest.mark.parametrize("name", ["nobody", "", ".", "/", "12", "frame12.png", "Cov-Atlas", "1.2.840"])
def test_what_means_nothing_is_unmatched(name: str, names: Names) -> None:
    assert names.match(name).how == "unmatched"


@given(name=st.text(max_size=30))
def test_any_text_is_matched_or_told(name: str) -> None:
    names = Names([{"video_id": video, "path": path} for video, path in VIDEOS.items()], FRAMES)
    assert names.match(name).how in {"exact", "stem", "frame", "ambiguous", "unmatched"}
