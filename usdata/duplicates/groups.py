"""Groups that must never be torn apart: patients, exams and confirmed duplicates, joined."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

Item = TypeVar("Item", bound=Hashable)


def connected_components(items: Iterable[Item], edges: Iterable[tuple[Item, Item]]) -> dict[Item, list[Item]]:
    """Each item with the members of its component, in the order of `items`."""
    parent: dict[Item, Item] = {item: item for item in items}

    def root(item: Item) -> Item:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in edges:
        parent[root(a)] = root(b)
    members: dict[Item, list[Item]] = {}
    for item in parent:
        members.setdefault(root(item), []).append(item)
    return {item: members[root(item)] for item in parent}


def group_ids(keys: Mapping[str, Iterable[str]], duplicates: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """A group id for every video.

    Two videos share a group if they share any key (a patient, an exam, a batch known not to share patients with others) or are duplicates
    of one another, also through a chain of others.

    Args:
        keys: video_id to its keys, such as 'patient:12' or 'group:ward_3'; a video without keys is a group of its own.
        duplicates: Pairs of video ids confirmed to hold the same scan.

    Returns:
        video_id to group_id: `<source>/<smallest key of the group>`, so that an id depends on the group's members alone.
    """
    nodes: list[str] = []
    edges: list[tuple[str, str]] = []
    names: dict[str, str] = {}
    for video_id in sorted(keys):
        source, _, name = video_id.partition("/")
        node = f"video {video_id}"
        nodes.append(node)
        names[node] = f"{source}/video:{name}"
        for key in sorted(keys[video_id]):
            key_node = f"key {source}/{key}"
            if key_node not in names:
                nodes.append(key_node)
                names[key_node] = f"{source}/{key}"
            edges.append((node, key_node))
    edges += [(f"video {a}", f"video {b}") for a, b in duplicates]
    result: dict[str, str] = {}
    for node, members in connected_components(nodes, edges).items():
        if node.startswith("video "):
            from_keys = [names[member] for member in members if member.startswith("key ")]
            result[node.removeprefix("video ")] = min(from_keys or [names[member] for member in members])
    return result


def independent_units(
    videos: Iterable[Mapping[str, Any]], frames: Iterable[Mapping[str, Any]], pairs: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    """What must stand in one part: groups, joined where they share a patient, a verified pair of clips or a frame with equal pixels.

    A `group_id` joins the pairs that the recipe's `join_score` takes for one scan; here every pair counts, for a part that shares one frame
    with another is not independent of it.

    Args:
        videos: Rows of videos.parquet: video_id, source, patient_id, group_id; a video with rows of two groups joins them.
        frames: Rows of frames.parquet: video_id, duplicate_group.
        pairs: Rows of duplicates.parquet: video_id_a, video_id_b.

    Returns:
        group_id to its unit's name: the first of the unit's group ids in alphabetical order.
    """
    group_of: dict[str, str] = {}
    groups: set[str] = set()
    edges: list[tuple[str, str]] = []
    patients: dict[tuple[str, str], str] = {}
    for video in videos:
        group = video["group_id"]
        groups.add(group)
        edges.append((group_of.setdefault(video["video_id"], group), group))
        if video["patient_id"] is not None:
            edges.append((patients.setdefault((video["source"], video["patient_id"]), group), group))
    for pair in pairs:
        a, b = group_of.get(pair["video_id_a"]), group_of.get(pair["video_id_b"])
        if a is not None and b is not None:
            edges.append((a, b))
    holders: dict[str, str] = {}
    for frame in frames:
        if frame["duplicate_group"] is not None:
            group = group_of[frame["video_id"]]
            edges.append((holders.setdefault(frame["duplicate_group"], group), group))
    components = connected_components(sorted(groups), [(a, b) for a, b in edges if a != b])
    first: dict[int, str] = {}
    return {group: first.setdefault(id(members), min(members)) for group, members in components.items()}
