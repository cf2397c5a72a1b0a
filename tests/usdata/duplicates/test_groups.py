"""Groups: joined by shared keys and duplicates, also through chains; the id depends on the members alone."""

import networkx
from hypothesis import given, settings
from hypothesis import strategies as st

from usdata.duplicates.groups import connected_components, group_ids


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_components_equal_networkx(edges: list[tuple[int, int]]) -> None:
    graph = networkx.Graph()
    graph.add_nodes_from(range(31))
    graph.add_edges_from(edges)
    expected = {frozenset(component) for component in networkx.connected_components(graph)}
    assert {frozenset(members) for members in connected_components(range(31), edges).values()} == expected


def test_patients_groups_and_duplicates_join_in_chains() -> None:
    keys = {"s/a": ["patient:1"], "s/b": ["patient:1", "group:ward"], "s/c": ["group:ward"], "s/d": ["patient:9"], "s/e": [], "s/f": []}
    groups = group_ids(keys, [("s/d", "s/e")])
    assert groups["s/a"] == groups["s/b"] == groups["s/c"] == "s/group:ward"
    assert groups["s/d"] == groups["s/e"] == "s/patient:9"
    assert groups["s/f"] == "s/video:f"


def test_equal_ids_of_two_sources_are_two_patients() -> None:
    groups = group_ids({"a/x": ["patient:1"], "b/x": ["patient:1"]})
    assert groups == {"a/x": "a/patient:1", "b/x": "b/patient:1"}
