"""Measure exports, status and report of a large run: masks a second, seconds and peak memory.

    python -m benchmarks.exports [--images 100000] [--masks 100] [--formats coco ...] [--keep DIR]

Writes a synthetic run (`benchmarks.synthetic_run`), asks for its status and report and exports it
by the command line, each in a process of its own, and writes `benchmarks/results/exports.json`.
Exits with 1 if COCO takes longer than 30,000 masks a second allow, or a gigabyte of memory or more,
or if status or report take a minute. This process stays small: a child's peak counts from its
parent's size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "exports.json"
LEAST_MASKS_PER_SECOND = 30_000
MOST_BYTES = 2**30
MOST_SECONDS = 60
_PACKAGES = ("pyarrow", "numpy")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--formats", nargs="+", default=["coco"])
    parser.add_argument("--keep", type=Path, help="where the run is written to, and stays")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        run = folder / f"run-{arguments.images}x{arguments.masks}"
        if not (run / "_amg/plan.json").exists():
            sizes = ["--images", str(arguments.images), "--masks", str(arguments.masks)]
            writer = [sys.executable, "-m", "benchmarks.synthetic_run", str(run), *sizes]
            subprocess.run(writer, check=True)
        looks = {
            "status": _measure(["status", str(run)]),
            "report": _measure(["report", str(run), str(folder / "report")]),
        }
        print(looks, flush=True)
        masks = arguments.images * arguments.masks
        rows = [_export(name, run, folder / "export", masks=masks) for name in arguments.formats]
    document = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    document[f"{arguments.images} images of {arguments.masks} masks"] = {
        "environment": _environment(),
        **looks,
        "exports": rows,
    }
    arguments.results.write_text(json.dumps(document, indent=2) + "\n")
    too_slow = [
        row
        for row in rows
        if row["format"] == "coco"
        and (
            row["masks_per_second"] < LEAST_MASKS_PER_SECOND
            or row["peak_memory_bytes"] >= MOST_BYTES
        )
    ]
    too_long = [name for name, look in looks.items() if look["seconds"] >= MOST_SECONDS]
    return 1 if too_slow or too_long else 0


def _export(name: str, run: Path, dest: Path, *, masks: int) -> dict[str, Any]:
    shutil.rmtree(dest, ignore_errors=True)
    measured = _measure(["export", name, str(run), str(dest)])
    size = sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())
    shutil.rmtree(dest)
    row = {
        "format": name,
        "masks": masks,
        "masks_per_second": round(masks / measured["seconds"]),
        **measured,
        "bytes_written": size,
    }
    print(row, flush=True)
    return row


def _measure(words: list[str]) -> dict[str, float]:
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "amg_pipeline.cli", *words])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"amg {words[0]} ended with {process.returncode}")
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }


def _environment() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


if __name__ == "__main__":
    sys.exit(main())
