"""The per-video step of a build: one raw clip in; stored frames, and what became of every frame that decoded, out.

One forward pass. Each frame is looked at once: blank, a near-repeat of the last unique frame, or unique; of the unique ones the sampling
rule keeps some. A clip that cannot be read is a result with a reason, not an exception. The step is a pure function of the raw bytes and
the settings; its images appear all at once, by one rename.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.key_frames import KeyFrames, key_frames_of
from usdata.duplicates.layers import LumaDigest
from usdata.errors import ReadError
from usdata.files import canonical_json, sha256_stream, sha256_text, write_text
from usdata.held_frames import HeldFrames
from usdata.imaging.colour import ColourKind
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.framing import Framing
from usdata.imaging.repetition import Repetition, RepetitionCollector
from usdata.looking import Look, look_at
from usdata.readers import open_clip
from usdata.readers.archives import open_raw
from usdata.readers.base import Clip
from usdata.recipe import Hygiene, Image, Reading
from usdata.sampling import Decision, Sampler, SamplingRule, proposed
from usdata.seeing import Seeing, see
from usdata.stored_images import StoredImages

SHORT_CLIP_FRAMES = 8
BLANK_SHARE = 0.95
NEAR_REPEATS_SHARE = 0.3
REDUCED_SIDE = 64


Store = Callable[[int, NDArray[np.uint8], Framing], dict[str, Any]]


@dataclass(frozen=True)
class VideoTask:
    """What a worker needs to know of one clip; it travels between processes.

    Attributes:
        raw: The file, or the folder of images.
        images: Where the clip's images go: SET/images/<source>/<video>.
        images_path: The same, relative to the data set.
        journal: The file that records the finished step.
        bytes: Size of the raw clip: long ones are started first.
        members: The files that it is made of, relative to the raw folder.
        shown: What is written in place of their names; None: their names.
        key: Digest of the raw bytes' identity and of every setting below: a journal of the same key need not be done again.
    """

    video_id: str
    raw: Path
    images: Path
    images_path: str
    journal: Path
    key: str
    bytes: int
    sampling: SamplingRule
    read: Reading
    hygiene: Hygiene
    image: Image
    seeing: Seeing
    members: tuple[str, ...] = ()
    shown: str | None = None


def raw_digest(raw: Path, path: str, members: Sequence[str]) -> tuple[str, int]:
    """The sha256 and the size of a raw file; of a clip of several files: over their names and digests in order, and the sum of their sizes.

    Raises:
        OSError: A file cannot be read.
        ReadError: A file lies in an archive and cannot be had from there.
    """
    found = {}
    for member in sorted(members):
        with open_raw(raw / member) as file:
            found[member] = sha256_stream(file)
    if tuple(members) == (path,):
        return found[path]
    listing = "".join(f"{Path(member).name} {digest}\n" for member, (digest, _) in found.items())
    return sha256_text(listing), sum(size for _, size in found.values())


def process_video(task: VideoTask) -> dict[str, Any]:
    """Read one clip and store its kept frames.

    Returns:
        The journal's content: `key`, `status`, `reason`, `video` (decoded facts), `kept` and `excluded` (a mapping a frame,
        without the columns that the data set adds). The same has been written to the task's journal.
    """
    task.images.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=task.images.parent, prefix=".part-"))
    scratch = Path(tempfile.mkdtemp(dir=task.images.parent, prefix=".part-"))
    try:
        images = StoredImages(staging, task.images_path)
        result = look_through(
            task.raw, sampling=task.sampling, read=task.read, hygiene=task.hygiene, seeing=task.seeing, scratch=scratch, store=images.frame
        )
        _hide_names(result, task)
        framing, key_frames = result.pop("framing", None), result.pop("key_frames", None)
        paths = {row["path"] for row in result["kept"]}
        if result["kept"]:
            beside = images.beside(framing, key_frames)
            result["video"] |= beside
            paths |= {beside[column] for column in ("overlay_path", "key_frames_path") if column in beside}
        result["images"] = images.keep(paths)
        # The old journal goes first: killed between here and the new one, the step is simply done again.
        task.journal.unlink(missing_ok=True)
        shutil.rmtree(task.images, ignore_errors=True)
        if result["kept"]:
            staging.chmod(0o755)
            staging.rename(task.images)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
    result["key"] = task.key
    write_text(task.journal, canonical_json(result))
    return result


def _hide_names(result: dict[str, Any], task: VideoTask) -> None:
    """Readers' sentences name files: where paths must not leave, neither may these."""
    if task.shown is None:
        return
    names = sorted({part for member in (*task.members, task.raw.name) for part in Path(member).parts}, key=lambda name: (-len(name), name))

    def hidden(text: str | None) -> str | None:
        for name in names:
            text = None if text is None else text.replace(name, str(task.shown))
        return text

    result["reason"] = hidden(result["reason"])
    result["video"]["notes"] = [hidden(note) for note in result["video"]["notes"]]


def look_through(
    raw: Path,
    *,
    sampling: SamplingRule,
    read: Reading,
    hygiene: Hygiene,
    seeing: Seeing | None = None,
    scratch: Path | None = None,
    store: Store | None = None,
) -> dict[str, Any]:
    """Read a clip once, forward, and say what it is and what becomes of each of its frames.

    Args:
        raw: The file, folder of images, or path into an archive.
        sampling: Which unique frames are kept.
        read: How it is decoded.
        hygiene: What counts as blank, repeated, damaged.
        scratch: Where a file from an archive is unpacked meanwhile.
        seeing: How its field of view is found; None: it is not looked for.
        store: Called after the pass with each kept frame's index, pixels and way of storing; gives further columns of its row.

    Returns:
        `status`, `reason`, `video`, `kept` and `excluded`, as in the journal; `proposal` (the geometry that was not taken, JSON),
        `consensus` (what was offered), `framing` (how frames are stored) and `key_frames` (see `usdata.duplicates.key_frames`). A clip that
        cannot be read is a result too, without these.
    """
    try:
        with HeldFrames(scratch) as held:
            return _looked_through(raw, sampling, read, hygiene, seeing, scratch, held, store)
    except ReadError as error:
        return no_result("failed", without_subject(error))
    except MemoryError:
        return no_result("failed", f"reading it takes more than {read.memory_mb} MB of memory (read.memory_mb)")


def without_subject(error: ReadError) -> str:
    """The reason alone: the subject is this machine's path, which must not reach a manifest."""
    return error.reason.replace(error.subject, Path(error.subject).name)


def _looked_through(
    raw: Path,
    sampling: SamplingRule,
    read: Reading,
    hygiene: Hygiene,
    seeing: Seeing | None,
    scratch: Path | None,
    held: HeldFrames,
    store: Store | None,
) -> dict[str, Any]:
    open_raw_clip = partial(open_clip, raw, backend=read.backend, scratch=scratch)
    kept: list[dict[str, Any]] = []
    excluded: list[dict[str, Any]] = []
    times: list[Fraction | None] = []
    colours, repetition = ColourKind(), RepetitionCollector()
    played: list[int] = []  # index of each frame that `repetition` has seen
    unique = candidates = 0
    places = _places_of_count(open_raw_clip, sampling, hygiene)
    with open_raw_clip() as clip:
        info = clip.info
        evidence = EvidenceCollector(info.frames_declared)
        sampler, luma = Sampler(sampling, info.declared_rate, places), LumaDigest()
        first: int | None = None
        for look in look_at(clip, hygiene):
            frame = look.frame
            luma.add(frame.pixels)
            first = frame.pts if first is None else first
            time = None if frame.pts is None or info.time_base is None or first is None else (frame.pts - first) * info.time_base
            times.append(time)
            row: dict[str, Any] = {"frame_index": frame.index, "pts": frame.pts, "time_s": None if time is None else float(time)}
            unique += look.reason is None
            if look.reason not in ("invalid", "damaged"):
                repetition.offer(frame.pixels)
                played.append(frame.index)
            if look.reason is None and seeing is not None:
                evidence.offer(frame.pixels, clip.picture, frame.index)
            decision = Decision(False)
            if _is_candidate(look, sampling):
                decision = sampler.offer(candidates, time, partial(reduced, frame.pixels))
                candidates += 1
            if decision.kept:
                kept.append(row)
                if store is not None:
                    held.add(frame.pixels)
                colours.offer(clip.picture)
            else:
                excluded.append(row | _why_excluded(look, decision, kept[-1]["frame_index"] if kept else None))
    if not times:
        said = f" ({clip.first_error})" if clip.first_error else ""
        raise ReadError(raw, f"no frame of it decodes{said}", "check the file with another player, or remove it")
    repeated = repetition.found()
    video = _facts(clip, times, unique) | {"colour_kind": colours.word, "period_frames": repeated.period}
    video |= {"packets_sha256": clip.packets_sha256, "luma_sha256": luma.hexdigest()}
    video["flags"] = _flags(clip, video, Counter(row["reason"] for row in excluded), repeated)
    reason = None if kept else "every frame that decodes is blank, damaged or invalid"
    if kept and read.truncated == "exclude" and "truncated" in video["flags"]:
        declared = "" if info.frames_declared is None else f" of {info.frames_declared} declared"
        reason = f"cut short: {len(times)} frames{declared} decode (read.truncated: exclude)"
    framing = Framing(info.height, info.width, None, "none", None)
    proposal: str | None = None
    found: KeyFrames | None = None
    if seeing is not None:
        seen = see(evidence, info, seeing, colours.word)
        framing, proposal = seen.framing, seen.proposal
        found = key_frames_of(evidence, framing.geometry, hidden=framing.painted_over, margin=framing.margin)
        video |= seen.columns
        if video["fov_views"] is not None and video["fov_views"] > 1:
            video["flags"] = sorted([*video["flags"], "dual_view"])
        if kept and reason is None and seeing.hold and video["review"] == "needed":
            reason = f"held back for review: {video['review_reason']}"
        if kept and reason is None and seeing.modes is not None and video["mode"] not in seeing.modes:
            reason = f"is {video['mode'].replace('_', ' ')}, which the recipe does not keep (modes)"
        if seeing.answer == "reject":
            reason = "rejected in review"
    again = _played_again(repeated, played) if hygiene.repeated == "one_period" else frozenset()
    if reason is not None:
        excluded += [row | _WITH_ITS_CLIP for row in kept]
        kept = []
    else:
        excluded = [row | _REPEATS_PERIOD if _is_again(row, again) else row for row in excluded]
        excluded += [row | _REPEATS_PERIOD for row in kept if row["frame_index"] in again]
        pictures = zip(kept, held, strict=True) if store is not None else ((row, None) for row in kept)
        kept = [
            row if store is None or pixels is None else row | store(row["frame_index"], pixels, framing)
            for row, pixels in pictures
            if row["frame_index"] not in again
        ]
    result = {"status": "ok" if kept else "excluded", "reason": reason, "video": video, "kept": kept, "excluded": excluded}
    offered = [] if seeing is None else list(seeing.consensus)
    return result | {"proposal": proposal, "consensus": offered, "framing": framing, "key_frames": found}


_COMPARED_WITH_NONE: dict[str, Any] = {"duplicate_of": None, "difference": None, "similarity": None}
_WITH_ITS_CLIP = {"reason": "clip_excluded"} | _COMPARED_WITH_NONE
_REPEATS_PERIOD = {"reason": "repeats_period"} | _COMPARED_WITH_NONE


def _why_excluded(look: Look, decision: Decision, last_kept: int | None) -> dict[str, Any]:
    """Why a frame is not kept; what is wrong with it by itself goes before what the sampling rule says."""
    if look.reason is None and decision.redundant:
        return _COMPARED_WITH_NONE | {"reason": "redundant", "duplicate_of": last_kept, "similarity": decision.similarity}
    return _COMPARED_WITH_NONE | {"reason": look.reason or "not_sampled", "duplicate_of": look.repeats, "difference": look.difference}


def _played_again(repeated: Repetition, played: Sequence[int]) -> frozenset[int]:
    """The indices of frames that a loop or a palindrome shows once more."""
    if repeated.unique_until is None:
        return frozenset()
    return frozenset(played[repeated.unique_until : repeated.repeated_until])


def _is_again(row: Mapping[str, Any], again: frozenset[int]) -> bool:
    """Whether an excluded frame lies in the repeated stretch, or is too like a frame of it, which is not kept after all."""
    return row["reason"] in ("not_sampled", "redundant") and (row["frame_index"] in again or row["duplicate_of"] in again)


def first_facts(clip: Clip) -> dict[str, Any]:
    """What videos.parquet says of a clip by its header and first frame alone: no counts, no rates but the declared one, no flags."""
    declared = clip.info.declared_rate
    facts = _facts(clip, [], 0) | {"frames_decoded": None, "frames_unique": None, "decode_errors": None}
    digests = {"packets_sha256": None, "luma_sha256": None}
    return facts | digests | {"fps": None if declared is None else float(declared), "colour_kind": None, "flags": []}


def _facts(clip: Clip, times: list[Fraction | None], unique: int) -> dict[str, Any]:
    """What videos.parquet says of a clip that decoded."""
    info = clip.info
    notes = list(info.notes)
    if clip.missing_indices:
        shown = ", ".join(str(number) for number in clip.missing_indices[:5])
        more = "" if len(clip.missing_indices) <= 5 else f" and {len(clip.missing_indices) - 5} more"
        notes.append(f"images are missing from the sequence: {shown}{more}")
    if clip.first_error is not None:
        notes.append(f"decoding: {clip.first_error}")
    return {
        "container": info.container,
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "width": info.width,
        "height": info.height,
        "time_base": None if info.time_base is None else f"{info.time_base.numerator}/{info.time_base.denominator}",
        "frames_declared": info.frames_declared,
        "frames_decoded": len(times),
        "frames_unique": unique,
        "decode_errors": clip.decode_errors,
        "rate_source": info.rate_source,
        "manufacturer": info.manufacturer,
        "device": info.device,
        "mm_per_pixel_x": info.mm_per_pixel_x,
        "mm_per_pixel_y": info.mm_per_pixel_y,
        "spacing_source": None if info.mm_per_pixel_x is None else "file",
        "regions": canonical_json([asdict(region) for region in info.regions]) if info.regions else None,
        "notes": notes,
        **_rates(times, unique),
    }


def _is_candidate(look: Look, sampling: SamplingRule) -> bool:
    """Whether a sampling rule is asked about a frame."""
    return look.reason is None or (sampling.over == "decoded" and look.reason in ("near_repeat", "blank"))


def reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame reduced to 64×64 by area: what is compared with the last kept one."""
    return np.asarray(cv2.resize(pixels, (REDUCED_SIDE, REDUCED_SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _places_of_count(open_raw_clip: Callable[[], Clip], sampling: SamplingRule, hygiene: Hygiene) -> frozenset[int] | None:
    """The positions that the rule `count` takes; None under the other rules.

    The rule needs the number of usable frames, which no container knows, so it costs a pass of its own.
    """
    if sampling.rule != "count":
        return None
    candidates: list[int] = []
    played: list[int] = []
    repetition = RepetitionCollector()
    with open_raw_clip() as clip:
        for look in look_at(clip, hygiene):
            if look.reason not in ("invalid", "damaged"):
                repetition.offer(look.frame.pixels)
                played.append(look.frame.index)
            if _is_candidate(look, sampling):
                candidates.append(look.frame.index)
    again = _played_again(repetition.found(), played) if hygiene.repeated == "one_period" else frozenset()
    once = [position for position, index in enumerate(candidates) if index not in again]
    return frozenset(once[place] for place in proposed(sampling, [None] * len(once)))


def _rates(times: list[Fraction | None], unique: int) -> dict[str, float | None]:
    """True mean rate, rate of unique frames, and duration; null where the stream has no timestamps."""
    known = [time for time in times if time is not None]
    span = known[-1] - known[0] if len(known) > 1 else Fraction(0)
    if span <= 0:
        return {"fps": None, "fps_effective": None, "duration_s": None}
    interval = span / (len(known) - 1)
    duration = span + interval
    return {"fps": float(1 / interval), "fps_effective": float(unique / duration), "duration_s": float(duration)}


def _flags(clip: Clip, video: dict[str, Any], reasons: Counter[str], repeated: Repetition) -> list[str]:
    decoded, unique = video["frames_decoded"], video["frames_unique"]
    repeats = reasons["near_repeat"]
    usable = unique + repeats
    flags = {
        "blank": decoded > 1 and reasons["blank"] >= BLANK_SHARE * decoded,
        "blank_frames": reasons["blank"] > 0,
        "damaged_frames": reasons["damaged"] > 0,
        "decode_errors": video["decode_errors"] > 0,
        "invalid_frames": reasons["invalid"] > 0,
        "missing_frames": bool(clip.missing_indices),
        "near_repeats": usable > 1 and repeats > NEAR_REPEATS_SHARE * usable,
        "short": decoded > 1 and unique < SHORT_CLIP_FRAMES,
        "truncated": clip.cut_short,
    }
    # What is black in all frames stands still too, which says nothing more.
    told = () if flags["blank"] else repeated.flags
    return sorted([*(name for name, holds in flags.items() if holds), *told])


def _no_facts() -> dict[str, Any]:
    counts = {"frames_decoded": 0, "frames_unique": 0, "decode_errors": 0}
    return dict.fromkeys(_NULLS) | counts | {"notes": [], "flags": []}


_NULLS = (
    "container", "codec", "pixel_format", "width", "height", "time_base", "frames_declared", "fps", "fps_effective", "duration_s",
    "rate_source", "manufacturer", "device", "mm_per_pixel_x", "mm_per_pixel_y", "regions", "colour_kind",
    "packets_sha256", "luma_sha256",
)  # fmt: skip


def no_result(status: str, reason: str) -> dict[str, Any]:
    """What the step would give for a clip that was not read: excluded by the recipe, missing, or the death of its workers."""
    return {"status": status, "reason": reason, "video": _no_facts(), "kept": [], "excluded": []}
