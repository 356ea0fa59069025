"""The tables of a page: failures, times, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from amg_pipeline.report.failures import FailureGroup, Failures
from amg_pipeline.report.page_text import count_of, named, text
from amg_pipeline.report.timings import Timings
from amg_pipeline.storage.stored_plan import StoredPlan

#: Shards that a page names.
_MOST_GIVEN_UP = 50


def failure_tables(failures: Failures, given_up: Mapping[int, str]) -> str:
    """Write what went wrong, in groups, with the images of each."""
    parts = [_failure_group(group) for group in failures.groups()]
    if given_up:
        more = len(given_up) - _MOST_GIVEN_UP
        rows = "".join(
            f"<tr><td>{number}</td><td>{text(why)}</td></tr>"
            for number, why in list(given_up.items())[:_MOST_GIVEN_UP]
        )
        parts.append(
            f"<h3>{count_of(len(given_up), 'shard')} given up</h3>"
            f"{_table(('shard', 'last failure'), rows)}{_more(more, 'shard')}"
        )
    return "".join(parts)


def _failure_group(group: FailureGroup) -> str:
    rows = "".join(
        f"<tr><td>{named(image_id)}</td><td>{text(message)}</td></tr>"
        for image_id, message in group.named
    )
    kind = f" · {text(group.error_type)}" if group.error_type else ""
    is_open = " open" if len(group.named) <= 10 else ""
    return (
        f"<details{is_open}><summary><strong>{count_of(group.count, 'image')}</strong> "
        f"<code>{text(group.status)}</code>{kind}</summary>"
        f"{_table(('image', 'what was wrong'), rows)}"
        f"{_more(group.count - len(group.named), 'image')}</details>"
    )


def time_tables(timings: Timings, shards_done: int) -> str:
    """Write where the time went."""
    if not timings.shards:
        return ""
    rate = timings.images / timings.seconds if timings.seconds else 0.0
    longest = max(timings.stage_seconds.values(), default=0.0)
    stages = "".join(
        f"<tr><td>{text(name.replace('_', ' '))}</td><td>{_seconds(seconds)}</td>"
        f'<td class="share"><span style="width:{100 * seconds / (longest or 1):.1f}%"></span></td>'
        "</tr>"
        for name, seconds in timings.stage_seconds.items()
    )
    slowest = "".join(
        f"<tr><td>{named(image_id)}</td><td>{_seconds(seconds)}</td></tr>"
        for image_id, seconds in timings.slowest
    )
    known = (
        ""
        if timings.shards == shards_done
        else f" Of {shards_done:,} shards that are done, {timings.shards:,} recorded their times."
    )
    parts = [
        f'<p class="hint">{_seconds(timings.seconds)} of work on '
        f"{count_of(timings.images, 'image')}, {rate:.3g} images per second and worker. Stages "
        f"run beside each other, so that they may add up to more.{known}</p>",
        '<div class="columns">',
        f"<div><h3>Stages</h3>{_table(('stage', 'time', ''), stages)}</div>",
    ]
    if slowest:
        parts.append(f"<div><h3>Slowest images</h3>{_table(('image', 'time'), slowest)}</div>")
    return "".join([*parts, "</div>"])


def settings_table(plan: StoredPlan) -> str:
    """Write the settings that the masks depend on."""
    rows = "".join(
        f"<tr><td>{text(name)}</td><td><code>{text(_as_setting(value))}</code></td></tr>"
        for name, value in sorted(plan.fingerprint_fields.items())
    )
    table = _table(("setting", "value"), rows)
    return f"<details><summary>What the masks depend on</summary>{table}</details>"


def _as_setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(heads: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div>"
    )


def _more(number: int, noun: str) -> str:
    return f'<p class="hint">and {count_of(number, "more " + noun)}</p>' if number > 0 else ""


def _seconds(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:,.1f} h"
