"""Groups that must never be torn apart: patients, exams and confirmed duplicates, joined."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

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
