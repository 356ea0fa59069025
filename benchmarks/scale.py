"""Measure what grows with a run, without a GPU and without images: `make scale`.

    python -m benchmarks.scale [--parts plan resume driver workers] [--repeats 3] [--quick]

- `plan`: planning 10^4 to 10^6 images from a manifest;
- `resume`: taking up a run of 100 to 10,000 shards of which half are done;
- `driver`: what the driver costs for each image, with workers that only tell of rows;
- `workers`: eight workers whose model sleeps 50 ms an image, against the ideal rate.

Each measurement runs several times in processes of its own; medians count, since other work on the
machine only ever adds. `workers` needs a machine for itself most of all: Ray starts its workers
with a niceness of 15, so where others want the cores they wait for one when the sleep of their
model is over, which counts as time in the model. Prints tables and writes
`benchmarks/results/scale.json`; parts that are not run keep the results that are there. Exits with
1 if the workers keep less than 95 % of the ideal.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "scale.json"
SIZES: Mapping[str, Sequence[int]] = {
    "plan": (10_000, 100_000, 1_000_000),
    "resume": (100, 1_000, 10_000),
    "driver": (10_000, 100_000, 1_000_000),
    "workers": (12_800,),
}
QUICK_SIZES: Mapping[str, Sequence[int]] = {
    "plan": (1_000, 10_000),
    "resume": (10, 100),
    "driver": (1_000,),
    "workers": (3_200,),
}
LEAST_SHARE_OF_IDEAL = 0.95
_PACKAGES = ("ray", "pyarrow", "numpy")


def main() -> int:
    arguments = _parse_arguments()
    results: dict[str, Any] = {}
    if arguments.results.is_file():
        results.update(json.loads(arguments.results.read_text()))
    sizes = QUICK_SIZES if arguments.quick else SIZES
    for part in arguments.parts:
        rows = [_measure(part, size, arguments.repeats) for size in sizes[part]]
        results[part] = {
            "environment": _environment(),
            **({"note": arguments.note} if arguments.note else {}),
            "repeats": arguments.repeats,
            "rows": rows,
            "growth": _growth(rows),
        }
        _print(part, results[part])
        _write(arguments.results, results)
    shares = [row["share_of_ideal"] for row in results.get("workers", {}).get("rows", [])]
    return int(any(share < LEAST_SHARE_OF_IDEAL for share in shares))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what grows with a run.")
    parser.add_argument("--parts", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it out")
    parser.add_argument("--note", help="kept with the results, e.g. what else the machine did")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        # Other work that wanted the cores when the measurement ended.
        "load_average": os.getloadavg()[1],
        **{name: version(name) for name in _PACKAGES},
    }


def _measure(part: str, size: int, repeats: int) -> dict[str, Any]:
    """Give the median of each number, and the best and worst of what counts most."""
    runs = [_run(part, size) for _ in range(repeats)]
    return {**_median(runs), **_spread(runs)}


def _run(part: str, size: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale_parts", part, str(size)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {part} {size:,}: {json.dumps(_rounded(result))}", flush=True)
    return result


def _median(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        key: _median([run[key] for run in runs])
        if isinstance(value, dict)
        else statistics.median(run[key] for run in runs)
        for key, value in runs[0].items()
    }


def _spread(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    keys = ("seconds", "seconds_until_first_shard", "cpu_seconds", "share_of_ideal")
    return {
        f"{key}_of_each_run": sorted(run[key] for run in runs)
        for key in keys
        if isinstance(runs[0].get(key), float)
    }


def _growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Give the exponent between the smallest and the largest size: 1 is proportional."""
    first, last = rows[0], rows[-1]
    size = "shards" if "shards" in first else "images"
    if first[size] == last[size]:
        return {}
    factor = math.log(last[size] / first[size])
    return {
        key: math.log(last[key] / first[key]) / factor
        for key in ("seconds", "seconds_until_first_shard", "cpu_seconds", "peak_mib", "plan_mib")
        if isinstance(first.get(key), float) and min(first[key], last[key]) > 0
    }


def _rounded(value: Any) -> Any:
    """Keep four digits, which is more than such a measurement is worth."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n")


def _print(part: str, result: Mapping[str, Any]) -> None:
    rows = [_rounded(row) for row in result["rows"]]
    names = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    print(f"\n{part}: median of {result['repeats']}")
    print("  " + "  ".join(names))
    for row in rows:
        print("  " + "  ".join(f"{row[name]:>{len(name)}}" for name in names))
    for key, exponent in result["growth"].items():
        print(f"  {key} grows as size to the {exponent:.2f}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
