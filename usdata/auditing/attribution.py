"""Whom to name: the sources of a data set with licence, paper and address, and the file ATTRIBUTION.md.

Comes in: the kept clips and the recipe. Goes out: a row for each licence of each source, and the file's text. Guarantees: papers and
addresses come from the catalogue and nowhere else; by which name an entry was found is said, and what is not known is said to be unknown.
"""

from __future__ import annotations

from typing import Any

from usdata.auditing.licences import strictest, what_it_asks
from usdata.auditing.markdown import plain
from usdata.auditing.tables import Tables
from usdata.cataloguing import entry_of

FOUND_BY = {
    "name": "the catalogue's entry of that name",
    "layout": "the catalogue's entry of its layout",
    "recipe": "the catalogue's entry of its recipe",
    "beginning": "the catalogue's entry whose name its own begins with; check that it is meant",
}


def attribution(tables: Tables, by_source: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whom to name.

    Args:
        tables: The data set.
        by_source: From `licences_by_source`.

    Returns:
        A row for each licence of each source: source, licence, clips, frames; and of the catalogue's entry title, citation, homepage,
        `entry` (its name) and `found_by` (name, layout, recipe or beginning); these are None where the catalogue does not know the source.
    """
    recipe = tables.dataset.about.get("recipe", {})
    layouts = {source.get("name"): source.get("layout") for source in recipe.get("sources", [])}
    rows = []
    for row in by_source:
        entry, found_by = entry_of(row["source"], layouts.get(row["source"]), recipe.get("name"), len(layouts))
        known = {name: getattr(entry, name, None) for name in ("title", "citation", "homepage")}
        counts = {name: row[name] for name in ("source", "licence", "clips", "frames")}
        rows.append(counts | known | {"entry": getattr(entry, "name", None), "found_by": found_by})
    return rows


def attribution_text(statistics: dict[str, Any]) -> str:
    """The text of ATTRIBUTION.md."""
    rows, name = statistics["attribution"], statistics["set"]["name"]
    clips, frames = statistics["totals"]["clips"], statistics["totals"]["frames"]
    lines = [f"# Attribution of {plain(name)}", "", f"{clips:,} clips and {frames:,} frames are kept, of these sources.", ""]
    if strict := strictest(statistics["licences"]):
        lines += [f"The strictest licence is {plain(strict)}: {what_it_asks(strict)}. Whoever passes the whole set on keeps to it.", ""]
    if unknown := sum(row["clips"] for row in statistics["licences"] if row["kind"] is None):
        has = "1 clip has" if unknown == 1 else f"{unknown:,} clips have"
        lines += [f"{has} no licence that is known here: find out the terms before passing anything of them on.", ""]
    for source in dict.fromkeys(row["source"] for row in rows):
        members = [row for row in rows if row["source"] == source]
        first = members[0]
        lines += [f"## {plain(source)}", ""]
        if first["entry"] is None:
            lines += ["- Cite: not in the catalogue; ask whoever made this source.", ""]
        else:
            lines += [f"- {plain(first['title'])}", f"- Cite: {plain(first['citation'])}"]
            lines += [f"- Address: <{first['homepage']}>"] if first["homepage"] else []
            lines += [f"- From {FOUND_BY[first['found_by']]} (`usdata catalog {first['entry']}`).", ""]
        lines += ["| licence | it asks | clips | frames |", "|---|---|---:|---:|"]
        for row in members:
            lines.append(
                f"| {plain(row['licence'] or 'none given')} | {what_it_asks(row['licence'])} | {row['clips']:,} | {row['frames']:,} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"
