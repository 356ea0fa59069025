"""What a page says first, and its gallery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amg_pipeline.report.cards import Card
from amg_pipeline.report.facts import RunFacts
from amg_pipeline.report.page_text import count_of, named, text
from amg_pipeline.report.picks import Section
from amg_pipeline.selection import Selection
from amg_pipeline.storage.image_scores import RowPlace
from amg_pipeline.storage.stored_plan import StoredPlan


def banners(plan: StoredPlan, shards_done: int, facts: RunFacts, selection: Selection) -> str:
    """Say what the numbers below do not cover."""
    notes = []
    if shards_done < plan.num_shards:
        notes.append(
            f"The run is not finished: {shards_done:,} of {count_of(plan.num_shards, 'shard')} "
            "are done. This page shows those."
        )
    if plan.config["amg"].get("keep_candidates"):
        notes.append("These are candidates, from before duplicates are dropped.")
    if selection != Selection():
        chosen = ", ".join(
            f"{name} {value}" for name, value in _differences(selection) if value is not None
        )
        notes.append(f"Filtered: {chosen}. {count_of(facts.left_out, 'mask')} left out.")
    return "".join(f'<p class="banner">{text(note)}</p>' for note in notes)


def _differences(selection: Selection) -> Iterable[tuple[str, Any]]:
    default = Selection()
    for name in Selection.__dataclass_fields__:
        value = getattr(selection, name)
        if value != getattr(default, name):
            shown = ", ".join(value) if isinstance(value, tuple) else value
            yield name.replace("_", " "), shown


def tiles(facts: RunFacts, plan: StoredPlan) -> str:
    """Write the totals."""
    median = facts.masks_per_image.quantile(0.5)
    failed = facts.failures.count
    entries = [
        ("images", f"{facts.images:,}", ""),
        ("masks", f"{facts.masks:,}", ""),
        ("median masks an image", "–" if median is None else f"{median:,.0f}", ""),
        ("most on one image", f"{facts.most_masks:,}" if facts.images_ok else "–", ""),
        ("failed images", f"{failed:,}", "alarm" if failed else ""),
    ]
    if (left := plan.num_images - facts.images) > 0:
        entries.append(("images not in this page", f"{left:,}", ""))
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div class="{kind}"><dt>{name}</dt><dd>{value}</dd></div>'
            for name, value, kind in entries
        )
        + "</dl>"
    )


def gallery(sections: Sequence[Section], cards: Mapping[RowPlace, Card], available: int) -> str:
    """Write the gallery, of which a script shows one section at a time."""
    shelves = [
        (section, [cards[pick.place] for pick in section.picks if pick.place in cards])
        for section in sections
    ]
    shelves = [(section, shown) for section, shown in shelves if shown]
    if not shelves:
        return ""
    tabs = "".join(
        f'<a href="#gallery-{section.name}" data-shelf="gallery-{section.name}">{section.title}</a>'
        for section, _ in shelves
    )
    hint = (
        f"{count_of(len(shelves[0][1]), 'image')} of {available:,} in each section. "
        if available > len(shelves[0][1])
        else ""
    )
    body = "".join(
        f'<section class="shelf" id="gallery-{section.name}"><h3>{section.title}</h3>'
        f'<ul class="cards">{"".join(_card(card) for card in shown)}</ul></section>'
        for section, shown in shelves
    )
    return (
        f'<nav class="tabs" aria-label="Sections of the gallery">{tabs}</nav>'
        f'<p class="hint">{hint}Point at a mask for its scores; open an image to go through all '
        f"of its masks.</p>{body}"
    )


def _card(card: Card) -> str:
    masks = count_of(card.num_masks, "mask")
    facts = f"{card.width:,} × {card.height:,}" + (f" · {card.scores}" if card.scores else "")
    problem = f'<span class="problem">{text(card.problem)}</span>' if card.problem else ""
    picture = '<div class="picture none"></div>'
    if card.thumb_wh is not None:
        width, height = card.thumb_wh
        source = f"images/{card.key}-thumb.jpg"
        picture = (
            f'<a class="picture" href="{source}" data-key="{card.key}">'
            f'<img src="{source}" width="{width}" height="{height}" loading="lazy" '
            f'decoding="async" alt="{masks} on {text(card.image_id)}"></a>'
        )
    return (
        f'<li class="card">{picture}<div class="caption">'
        f'<span class="name" title="{text(card.image_id)}">{named(card.image_id)}</span>'
        f'<span class="count">{masks}</span><span class="facts">{text(facts)}</span>{problem}'
        "</div></li>"
    )
