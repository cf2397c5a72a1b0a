"""Copies that a build joins without looking at content: another container, a lossless codec; and black clips, which it leaves apart."""

import numpy as np
import pytest

from tests.usdata.readers.generated import X264_B, encode, ffmpeg, pattern
from usdata import manifest
from usdata.building import build
from usdata.recipe import Recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> manifest.DataSet:
    folder = tmp_path_factory.mktemp("layers")
    raw = folder / "raw"
    raw.mkdir()
    source = encode(raw / "a_source.mp4", pattern(24, 96, 64), *X264_B)
    encode(raw / "z_other.mp4", pattern(24, 96, 64, seed=1), *X264_B)
    for name, options in {
        "b_remuxed.mkv": ("-c", "copy"),
        "c_lossless.mkv": ("-c:v", "ffv1"),
        "d_shorter.mkv": ("-c:v", "ffv1", "-frames:v", "20"),
        "e_lossy.mp4": ("-c:v", "libx264", "-crf", "30"),
    }.items():
        done = ffmpeg("-v", "error", "-i", source, "-fps_mode", "passthrough", *options, raw / name)
        assert done.returncode == 0, done.stderr.decode()
    black = np.zeros((24, 64, 96, 3), np.uint8)
    encode(raw / "black.mp4", black, *X264_B)
    encode(raw / "black_again.mkv", black, *X264_B)
    card = np.repeat(pattern(1, 96, 64, seed=7), 24, axis=0)
    encode(raw / "card.mkv", card, "-c:v", "ffv1", "-pix_fmt", "gray")
    encode(raw / "card_again.avi", card, "-c:v", "huffyuv")
    # Every clip is a patient's own, and blank frames are kept, as scripts do; every second frame, so that the shorter clip keeps them too.
    source_of = {"name": "s", "layout": "files", "pattern": r"(?P<patient>[a-z_]+)\.", "patient_ids": "public"}
    sampling = {"rule": "every", "every": 2, "over": "decoded"}
    settings = {"name": "layers", "sources": [source_of | {"sampling": sampling}], "folds": {"count": 0}, "modes": None}
    settings["duplicates"] = {"content": False}
    recipe = Recipe.model_validate(settings)
    build(recipe, raw=raw, out=folder / "set", workers=2)
    return manifest.open_dataset(folder / "set")


def pairs_of(built: manifest.DataSet) -> dict[tuple[str, str], str]:
    rows = built.duplicates.itertuples()
    return {(row.video_id_a.split("/")[1].rsplit("_", 1)[0], row.video_id_b.split("/")[1].rsplit("_", 1)[0]): row.kind for row in rows}


def test_each_copy_is_found_by_the_layer_that_it_leaves(built: manifest.DataSet) -> None:
    pairs = pairs_of(built)
    scan = {pair: kind for pair, kind in pairs.items() if "card" not in pair[0] and "black" not in pair[0]}
    assert scan == {
        ("a_source", "b_remuxed"): "packets",
        ("a_source", "c_lossless"): "luma",
        ("b_remuxed", "c_lossless"): "luma",
        ("a_source", "d_shorter"): "pixels",
        ("b_remuxed", "d_shorter"): "pixels",
        ("c_lossless", "d_shorter"): "pixels",
    }
    rows = built.duplicates.set_index(["video_id_a", "video_id_b"])
    remuxed = rows.loc[("s/a_source_mp4", "s/b_remuxed_mkv")]
    assert (remuxed.score, remuxed.first_frame_a, remuxed.last_frame_a, remuxed.first_frame_b, remuxed.last_frame_b) == (1, 0, 22, 0, 22)


def test_whole_copies_join_one_group_and_others_do_not(built: manifest.DataSet) -> None:
    groups = built.videos.set_index("path").group_id
    assert groups["a_source.mp4"] == groups["b_remuxed.mkv"] == groups["c_lossless.mkv"]
    assert len({groups[name] for name in ("a_source.mp4", "z_other.mp4", "e_lossy.mp4")}) == 3


def test_black_clips_and_title_cards_are_not_joined_by_packets_or_luma(built: manifest.DataSet) -> None:
    videos = built.videos.set_index("path")
    assert (videos.status[["black.mp4", "black_again.mkv"]] == "ok").all(), "the rule keeps blank frames"
    assert videos.packets_sha256["black.mp4"] == videos.packets_sha256["black_again.mkv"]
    assert videos.luma_sha256["card.mkv"] == videos.luma_sha256["card_again.avi"]
    told = [(row.video_id_a, row.kind) for row in built.duplicates.itertuples() if "black" in row.video_id_a or "card" in row.video_id_a]
    assert told == [("s/card_again_avi", "pixels")], "the card's frames are equal, and no black frame tells anything"
