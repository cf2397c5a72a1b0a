"""Folds and splits by group, stratified by label: which part each group belongs to.

Groups are never torn apart, and groups whose clips share a scan stand in one part. The assignment is a function of groups, labels, sizes
and seed alone: not of the order of rows, nor of the machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from usdata.recipe import Folds, Split

LEAST_GAIN = 1e-9  # a relative gain below this is rounding


def assign_parts(groups: Mapping[str, Counter[str]], shares: Sequence[float], *, seed: int) -> dict[str, int]:
    """Put each group into one of several parts so that every label is spread over the parts by their shares.

    What is made small is the sum over labels and parts of squared relative excess. Group by group goes into the part where that grows
    least (a tie goes to the part that is filled least); then groups move, one at a time, to where it is smaller, until none can. Seed 0
    takes the groups from the largest to the smallest; any other seed lets a group stand for up to a quarter more than its size in that
    order, drawn from the seed, so that it makes another assignment and not another numbering of the same one. A quarter, because
    benchmarks/splits.py finds labels spread as evenly as by seed 0 then, and less so with more.

    Two bounds hold for any groups and seed, and are tested. With F(l, i) the frames of label l in part i, T(l) all of them, p(i) the k
    shares above 0, and s(l, g) those of group g:

    1. sum over l, i of p(i) (F(l, i) / (p(i) T(l)) - 1)^2  is at most  (k - 1) x sum over l, g of (s(l, g) / T(l))^2,
       for the least growth is at most the growth averaged over the parts by their shares, and a move only lowers the sum.
    2. Where every group has one label: |F(l, i) - p(i) T(l)| is at most m/2 x (1 + p(i) (k - 2)), m being the label's largest group;
       for k equal folds (1 - 1/k) m. For where a group of size s has no reason to move from i to j, (F(l, i) - s/2) / p(i) is at most
       (F(l, j) + s/2) / p(j).

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
    weights = {label: 1 / total**2 for label, total in totals.items() if total}
    filled: list[Counter[str]] = [Counter() for _ in shares]
    used = [position for position in range(len(shares)) if shares[position] > 0]
    result: dict[str, int] = {}

    def order(group: str) -> tuple[float, str]:
        drawn = hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()
        size = groups[group].total()
        return (-size if seed == 0 else -size * (1 + int(drawn[:12], 16) / 16**12 / 4)), drawn

    def growth(group: str, part: int, sign: int) -> float:
        """How much the sum grows when a group comes to a part (sign 1) or would shrink when it left (-1)."""
        sizes = groups[group].items()
        # Relative to the label's whole, so that a rare label weighs as much as a common one.
        return sum((2 * filled[part][label] + sign * size) * size * weights[label] for label, size in sizes if size) / shares[part]

    ordered = sorted(groups, key=order)
    for group in ordered:
        part = min((growth(group, part, 1), filled[part].total() / shares[part], part) for part in used)[-1]
        result[group] = part
        filled[part].update(groups[group])
    moved = True
    while moved:
        moved = False
        for group in ordered:
            at = result[group]
            there, part = min(((growth(group, part, 1), part) for part in used if part != at), default=(float("inf"), at))
            if there < growth(group, at, -1) * (1 - LEAST_GAIN):
                filled[at].subtract(groups[group])
                filled[part].update(groups[group])
                result[group] = part
                moved = True
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
