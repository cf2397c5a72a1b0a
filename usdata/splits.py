"""Folds and splits by group, stratified by label: which part each group belongs to.

Groups are never torn apart. The assignment is a function of groups, labels, sizes and seed alone: not of the order of rows, nor of the
machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from usdata.recipe import Folds, Split


def assign_parts(groups: Mapping[str, Counter[str]], shares: Sequence[float], *, seed: int) -> dict[str, int]:
    """Put each group into one of several parts so that every label is spread over the parts by their shares.

    Greedy: groups from the largest to the smallest (ties in an order drawn from the seed), each into the part where the sum over labels of
    squared relative excess grows least; a part that a label has not reached yet comes first, so that few groups are spread and not piled
    up.

    Args:
        groups: group_id to the number of frames it holds of each label ('' = unlabelled).
        shares: Wanted share of each part; they sum to 1.
        seed: Any integer of 0 or more.

    Returns:
        group_id to the position of its part.
    """
    totals: Counter[str] = Counter()
    for sizes in groups.values():
        totals.update(sizes)
    filled: list[Counter[str]] = [Counter() for _ in shares]
    result: dict[str, int] = {}

    def order(group: str) -> tuple[int, str]:
        return -groups[group].total(), hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()

    for group in sorted(groups, key=order):

        def excess(part: int, sizes: Counter[str] = groups[group]) -> tuple[float, float, int]:
            grown = 0.0
            for label, size in sizes.items():
                if size == 0:
                    continue
                wanted = totals[label] * shares[part]
                if wanted == 0:
                    return float("inf"), float("inf"), part
                before = filled[part][label] / wanted
                after = (filled[part][label] + size) / wanted
                # Weighted by the label's own part of the group, so that a rare label weighs as much as a common one.
                grown += (after**2 - before**2) * shares[part]
            return grown, filled[part].total() / shares[part], part

        part = min((position for position in range(len(shares)) if shares[position] > 0), key=excess)
        result[group] = part
        filled[part].update(groups[group])
    return result


def fold_of_groups(groups: Mapping[str, Counter[str]], folds: Folds) -> dict[str, int | None]:
    """group_id to its fold, or to null when the recipe asks for none or there are fewer groups than folds."""
    if folds.count < 2 or len(groups) < folds.count:
        return dict.fromkeys(groups)
    return dict(assign_parts(groups, [1 / folds.count] * folds.count, seed=folds.seed))


def split_of_groups(groups: Mapping[str, Counter[str]], split: Split) -> dict[str, str]:
    """group_id to train, val or test."""
    shares = [1 - split.val - split.test, split.val, split.test]
    parts = assign_parts(groups, shares, seed=split.seed)
    return {group: ("train", "val", "test")[part] for group, part in parts.items()}


def label_counts(rows: Sequence[tuple[str, str | None]]) -> dict[str, Counter[str]]:
    """Pairs of (group_id, label), one a frame, as the counts that the functions above take."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for group, label in rows:
        counts[group][label or ""] += 1
    return dict(counts)
