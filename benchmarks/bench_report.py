"""From the log of `make bench` to its JSON, and from there to tables and plots in the docs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.contenders.protocol import POINTS_PER_BATCH

DOCS = Path(__file__).parent.parent / "docs"
_SHOWN = {
    "ours": "this project, strict",
    "ours, fast": "this project, fast",
    "kerashub": "KerasHub in the loop",
    "hugging face": "Hugging Face",
    "reference": "reference",
}
_STAGES = ("embed", "score", "measure")
_CURVES = [
    "![Seconds a photo against points, megapixels and crop layers](images/cost.svg)",
    "",
    "With `tiny`: photos of 481 x 321 for the points, 32 x 32 points for sizes and crops, crops of",
    "a photo of 1024 x 683 with as many points each.",
]


def summarise(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Turn measurements, by key, into medians, ratios and fractions."""
    peers: dict[str, Any] = {}
    for prefix in sorted({"|".join(k.split("|")[1:3]) for k in entries if k.startswith("peers|")}):
        own = {
            key.removeprefix(f"peers|{prefix}|"): entry
            for key, entry in entries.items()
            if key.startswith(f"peers|{prefix}|")
        }
        peers[prefix.replace("|", ", points per side ")] = _summarise_peers(own)
    return {
        "peers": peers,
        "tiny": _summarise_tiny(entries),
        "curves": _summarise_curves(entries),
        "memory": {
            key.removeprefix("memory|"): {
                "seconds": round(entry["seconds"], 1),
                "peak_bytes": entry["peak_bytes"],
                "masks": entry["value"],
            }
            for key, entry in entries.items()
            if key.startswith("memory|")
        },
    }


def _summarise_peers(own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    cpu: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    peaks: dict[str, int] = defaultdict(int)
    rates: dict[str, list[float]] = defaultdict(list)
    loads: list[float] = []
    for key, entry in own.items():
        kind, _, rest = key.partition("|")
        if kind == "stage":
            for stage, reply in entry["value"].items():
                name = rest.rpartition("|")[0]
                seconds[name][stage].append(reply["seconds"])
                cpu[name][stage].append(reply["cpu_seconds"])
                peaks[name] = max(peaks[name], reply["peak_bytes"])
        elif kind == "whole":
            name = rest.rpartition("|")[0]
            seconds[name]["generate"].append(entry["seconds"])
            cpu[name]["generate"].append(entry["cpu_seconds"])
            peaks[name] = max(peaks[name], entry["peak_bytes"])
        elif kind == "rate":
            for dtype, value in entry["value"].items():
                rates[dtype].append(value)
        loads.append(entry["load_average"])
    batches = own.get("points", {}).get("value", 1024) / POINTS_PER_BATCH
    medians, cpu_medians = (_medians(measured, batches) for measured in (seconds, cpu))
    rate = {dtype: statistics.median(values) for dtype, values in rates.items()}
    return {
        "thresholds": {
            name: value
            for name, value in own.get("thresholds", {}).items()
            if name not in ("key", "load_average")
        },
        "logits_error": {
            key.removeprefix("logits|"): entry["value"]
            for key, entry in own.items()
            if key.startswith("logits|")
        },
        "left_out": {
            key.removeprefix("error|"): entry["value"]
            for key, entry in own.items()
            if key.startswith("error|")
        },
        "seconds": _rounded(medians),
        "cpu_seconds": _rounded(cpu_medians),
        "all_seconds": {name: dict(stages) for name, stages in seconds.items()},
        "ours_is_faster_by": _ratios(medians),
        "ours_needs_less_cpu_by": _ratios(cpu_medians),
        "peak_bytes": dict(peaks),
        "products_per_second": rate,
        "products_per_second_range": {d: [min(v), max(v)] for d, v in rates.items()},
        "flops": _flops(own),
        "fraction_of_rate": _fractions(own, medians, rate),
        "load_average": [min(loads, default=0.0), max(loads, default=0.0)],
    }


def _medians(
    measured: dict[str, dict[str, list[float]]], batches: float
) -> dict[str, dict[str, float]]:
    """Give medians, and what a whole photo takes by its stages: one encoding, so many batches."""
    medians = {
        name: {stage: statistics.median(values) for stage, values in stages.items()}
        for name, stages in measured.items()
    }
    for stages in medians.values():
        if all(stage in stages for stage in _STAGES):
            embed, score, measure = (stages[stage] for stage in _STAGES)
            stages["by_stages"] = embed + batches * (score + measure)
    return medians


def _ratios(medians: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    ours = medians.get("ours", {})
    return {
        name: {s: round(value / ours[s], 2) for s, value in stages.items() if s in ours}
        for name, stages in medians.items()
    }


def _rounded(values: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {n: {s: round(v, 3) for s, v in stages.items()} for n, stages in values.items()}


def _flops(own: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {
        key.removeprefix("work|"): {step: work["flops"] for step, work in entry["value"].items()}
        for key, entry in own.items()
        if key.startswith("work|")
    }


def _fractions(
    own: dict[str, dict[str, Any]],
    medians: dict[str, dict[str, float]],
    rate: dict[str, float],
) -> dict[str, dict[str, float]]:
    if "float32" not in rate:
        return {}
    return {
        name: {
            step: round(flops / medians[name][step] / rate["float32"], 3)
            for step, flops in steps.items()
            if step in medians.get(name, {})
        }
        for name, steps in _flops(own).items()
    }


def _summarise_tiny(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    seconds: dict[str, list[float]] = defaultdict(list)
    first, command = [], []
    for key, entry in entries.items():
        if key.startswith("tiny|seconds|"):
            seconds[key.split("|")[2]].append(entry["seconds"])
        if key.startswith("tiny|first masks|"):
            first.append(entry["seconds"])
            command.append(entry["command_seconds"])
    found: dict[str, Any] = {
        "median_seconds": {n: round(statistics.median(v), 3) for n, v in seconds.items()},
        "photos": entries.get("tiny|photos", {}).get("value"),
        "agreement": entries.get("tiny|agreement", {}).get("value"),
    }
    if first:
        found["seconds_until_first_masks"] = round(statistics.median(first), 2)
        found["seconds_of_a_run_of_one_photo"] = round(statistics.median(command), 2)
    return found


def _summarise_curves(entries: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    curves: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for key, entry in entries.items():
        if key.startswith("curves|"):
            _, curve, side, size, layers = key.split("|")
            curves[curve].append(
                {
                    "points": int(side) ** 2,
                    "size": size,
                    "crop_layers": int(layers),
                    "seconds": round(entry["seconds"], 3),
                    "peak_bytes": entry["peak_bytes"],
                    "masks": entry["value"],
                }
            )
    return dict(curves)


def write_docs(document: dict[str, Any], docs: Path = DOCS) -> None:
    """Write the tables between their marks in `performance.md`, and the plots."""
    page = docs / "performance.md"
    text = page.read_text()
    for name, lines in {
        "peers": _peers_tables(document),
        "tiny": _tiny_lines(document["tiny"]),
        "curves": _CURVES if document["curves"] else [],
        "memory": _memory_table(document["memory"]),
    }.items():
        text = put_between(text, name, lines)
    page.write_text(text)
    if document["curves"]:
        _draw(document["curves"], docs / "images" / "cost.svg")


def put_between(text: str, name: str, lines: list[str]) -> str:
    """Replace what stands between the marks of a name; without marks, or lines, nothing changes."""
    start, end = f"<!-- bench: {name} -->\n", f"<!-- end of bench: {name} -->"
    before, mark, rest = text.partition(start)
    _, end_mark, after = rest.partition(end)
    if not (mark and end_mark and lines):
        return text
    return f"{before}{start}\n" + "\n".join(lines) + f"\n\n{end}{after}"


def _peers_tables(document: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for title, peers in document["peers"].items():
        if not peers["seconds"]:
            continue
        thresholds, rate = peers["thresholds"], peers["products_per_second"]
        width, height = thresholds["size_wh"]
        low, high = peers["products_per_second_range"]["float32"]
        lines += [
            f"`{title}`, a photo of {width} x {height}, {document['environment']['cores']} cores "
            f"({document['environment']['processor']}); load average {peers['load_average'][0]} to "
            f"{peers['load_average'][1]} while measuring. "
            f"{thresholds['passing_share']:.0%} of masks pass the IoU filter, "
            f"{thresholds['share_of_prompts_with_a_survivor']:.0%} of prompts have one that does. "
            f"Products ran at {rate['float32'] / 1e9:.0f} GFLOP/s in float32 "
            f"({low / 1e9:.0f} to {high / 1e9:.0f}) and {rate['bfloat16'] / 1e9:.0f} in bfloat16.",
        ]
        for key, ratios, shown in (
            ("seconds", "ours_is_faster_by", "Seconds"),
            ("cpu_seconds", "ours_needs_less_cpu_by", "Processor seconds"),
        ):
            lines += [
                "",
                f"| {shown} (times ours) | encoder | 64 prompts to scores | their masks "
                "| a photo by these stages | a photo in one go | peak memory |",
                "|---|---|---|---|---|---|---|",
            ]
            for name, label in _SHOWN.items():
                if name in peers[key]:
                    steps = (*_STAGES, "by_stages", "generate")
                    cells = [_cell(peers[key][name], peers[ratios].get(name, {}), s) for s in steps]
                    memory = f"{peers['peak_bytes'][name] / 2**30:.1f} GiB"
                    lines.append(f"| {label} | " + " | ".join([*cells, memory]) + " |")
        lines += ["", "| | encoder | 64 prompts to scores | a whole photo |", "|---|---|---|---|"]
        for name, flops in peers["flops"].items():
            cells = [f"{flops[step] / 1e9:,.0f}" for step in ("embed", "score", "generate")]
            lines.append(f"| GFLOP, {_SHOWN[name]} | " + " | ".join(cells) + " |")
        for name, fractions in peers["fraction_of_rate"].items():
            cells = [
                f"{fractions[step]:.0%}" if step in fractions else ""
                for step in ("embed", "score", "generate")
            ]
            lines.append(
                f"| share of the float32 rate, {_SHOWN[name]} | " + " | ".join(cells) + " |"
            )
        lines.append("")
    return lines[:-1]


def _cell(values: dict[str, float], ratios: dict[str, float], step: str) -> str:
    if step not in values:
        return ""
    ratio = ratios.get(step, 1.0)
    return f"{values[step]:.2f}" if ratio == 1.0 else f"{values[step]:.2f} ({ratio:.1f}×)"


def _tiny_lines(tiny: dict[str, Any]) -> list[str]:
    lines = []
    for name, seconds in tiny["median_seconds"].items():
        lines.append(f"- {_SHOWN[name]}: {seconds:.2f} s a photo, median, default grid.")
    if "seconds_until_first_masks" in tiny:
        lines.append(
            "- From the start of a process to its first masks: "
            f"{tiny['seconds_until_first_masks']} s; a whole `amg run --local` of one photo: "
            f"{tiny['seconds_of_a_run_of_one_photo']} s."
        )
    if found := tiny.get("agreement"):
        lines.append(
            f"- Fast against strict on {found['images']} photos ({tiny['photos']}), "
            f"{found['strict_masks']} masks: counts differ by "
            f"{found['median_count_difference']:.1%} (median), {found['matched_share']:.1%} of "
            "strict masks are matched at IoU 0.9 or more "
            f"(median IoU of those {found['median_matched_iou']:.3f}), and "
            f"{found['equal_count_share']:.0%} of photos have as many masks."
        )
    return lines


def _memory_table(memory: dict[str, Any]) -> list[str]:
    if not memory:
        return []
    lines = ["| 24 megapixels | peak memory | seconds | masks |", "|---|---|---|---|"]
    for name, row in memory.items():
        peak = f"{row['peak_bytes'] / 1e9:.2f} GB"
        lines.append(f"| {name} | {peak} | {row['seconds']:.0f} | {row['masks']} |")
    return lines


def _draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # No dates and no random names: the same numbers give the same file.
    mpl.rcParams["svg.hashsalt"] = "amg"
    axes_of = {
        "points": ("points", lambda row: row["points"], True),
        "size": ("megapixels", _megapixels, True),
        "crops": ("crop layers", lambda row: row["crop_layers"], False),
    }
    figure, axes = plt.subplots(1, len(axes_of), figsize=(11, 3.2), layout="constrained")
    for axis, (name, (label, value, is_log)) in zip(axes, axes_of.items(), strict=True):
        rows = sorted(curves.get(name, []), key=value)
        axis.plot([value(r) for r in rows], [r["seconds"] for r in rows], "o-", color="#0b7285")
        axis.set_xlabel(label)
        axis.set_ylabel("seconds a photo")
        axis.grid(visible=True, alpha=0.3)
        if is_log:
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
        else:
            axis.set_xticks([value(row) for row in rows])
            axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _megapixels(row: dict[str, Any]) -> float:
    width, _, height = row["size"].partition("x")
    return int(width) * int(height) / 1e6
