"""The page of a run as one HTML document that asks nothing of the network.

Everything that a run stored (names, messages, settings) is treated as text: it is escaped, signs
that cannot be seen or that turn the direction of writing are spelled out, and the page's own policy
runs no script but its own and those that lie beside it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from amg_pipeline.report.cards import Card
from amg_pipeline.report.facts import RunFacts
from amg_pipeline.report.page_charts import charts
from amg_pipeline.report.page_folder import ICON, MARK
from amg_pipeline.report.page_parts import banners, gallery, tiles
from amg_pipeline.report.page_tables import failure_tables, settings_table, time_tables
from amg_pipeline.report.page_text import visible
from amg_pipeline.report.picks import Section
from amg_pipeline.report.timings import Timings
from amg_pipeline.selection import Selection
from amg_pipeline.storage.image_scores import RowPlace
from amg_pipeline.storage.stored_plan import StoredPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """All that a page says.

    Attributes:
        title: Its heading.
        plan: The run's plan.
        shards_done: Shards that are committed.
        given_up: Why shards were given up, by their numbers.
        selection: Which images and masks it is about.
        facts: What they come to.
        timings: Where the time went.
        sections: The gallery.
        cards: Its images, by the places of their rows.
    """

    title: str
    plan: StoredPlan
    shards_done: int
    given_up: Mapping[int, str]
    selection: Selection
    facts: RunFacts
    timings: Timings
    sections: Sequence[Section]
    cards: Mapping[RowPlace, Card]


def render_page(page: RunPage) -> str:
    """Write the document; its links are relative, so that it can lie anywhere."""
    plan, facts = page.plan, page.facts
    parts = {
        "overview": ("Overview", tiles(facts, plan) + charts(facts, plan, page.selection)),
        "gallery": ("Gallery", gallery(page.sections, page.cards, facts.gallery.count)),
        "failures": ("Failures", failure_tables(facts.failures, page.given_up)),
        "time": ("Time", time_tables(page.timings, page.shards_done)),
        "settings": ("Settings", settings_table(plan)),
    }
    there = {name: part for name, part in parts.items() if part[1]}
    links = "".join(f'<a href="#{name}">{title}</a>' for name, (title, _) in there.items())
    body = "\n".join(
        f'<section class="part" id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title}</h2>\n{content}\n</section>'
        for name, (title, content) in there.items()
    )
    script = _asset("page.js")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}
<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="{ICON}">
<title>{escape(visible(page.title))}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(visible(page.title))}</h1>
<p class="run">{_run_line(plan)}</p>
<nav aria-label="Parts of the page">{links}</nav>
</header>
<main>
{banners(page.plan, page.shards_done, facts, page.selection)}
{body}
</main>
<footer>Written by amg_pipeline from what the run stored.</footer>
{_VIEWER}
<script>{script}</script>
</body>
</html>
"""


def _run_line(plan: StoredPlan) -> str:
    model = plan.config.get("model", {})
    facts = [
        f"model {model.get('variant', '?')}",
        f"weights {plan.weights_sha256[:8]}",
        f"settings {plan.fingerprint[:8]}",
        f"amg_pipeline {plan.package_version}",
    ]
    return " · ".join(escape(visible(fact)) for fact in facts)


def _policy(script: str) -> str:
    """Allow this page's style and script, and files beside it, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # A page that is opened from a disk has no origin in some browsers: hence `file:`.
    beside = "'self' file:"
    return (
        f"default-src 'none'; img-src {beside}; script-src {beside} 'sha256-{digest}'; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return resources.files("amg_pipeline.report").joinpath(name).read_text(encoding="utf-8")


_VIEWER = """<dialog id="viewer" aria-labelledby="viewer-name">
<div class="top">
<div class="steps">
<button type="button" data-step="-1" aria-label="Previous image">‹</button>
<span class="position"></span>
<button type="button" data-step="1" aria-label="Next image">›</button>
</div>
<strong class="name" id="viewer-name"></strong>
<div class="modes" role="group" aria-label="What is drawn">
<button type="button" data-mode="masks" aria-pressed="true">Masks</button>
<button type="button" data-mode="outlines" aria-pressed="false">Outlines</button>
<button type="button" data-mode="photo" aria-pressed="false">Photo</button>
</div>
<button type="button" class="close" aria-label="Close">✕</button>
</div>
<div class="body">
<div class="stage"><img alt=""><canvas class="paint"></canvas><canvas class="focus"></canvas></div>
<aside aria-label="Masks of this image">
<table>
<thead><tr>
<th scope="col"><button type="button" data-sort="number">Mask</button></th>
<th scope="col"><button type="button" data-sort="iou">IoU</button></th>
<th scope="col"><button type="button" data-sort="stability">Stability</button></th>
<th scope="col"><button type="button" data-sort="area">Area</button></th>
</tr></thead>
<tbody></tbody>
</table>
<p class="keys"><kbd>←</kbd> <kbd>→</kbd> images, <kbd>↑</kbd> <kbd>↓</kbd> masks, <kbd>M</kbd>
<kbd>O</kbd> <kbd>P</kbd> what is drawn, <kbd>Esc</kbd> back</p>
</aside>
</div>
</dialog>
<div id="tip" role="status" hidden></div>"""
