"""Measure the speed of mask generation, beside its peers, and write the tables: `make bench`.

    python -m benchmarks.bench [PART ...] [--model vit_b] [--points-per-side 32] [--photos flower]

Parts: `peers` (all contenders, interleaved, with the same seeded weights), `tiny` (fast against
strict, seconds a photo, time until the first masks), `curves` (cost against points, image size and
crops) and `memory` (a photo of 24 megapixels). Every measurement is appended to a log, and a run
that was cut off goes on with what it lacks; `--anew` forgets the log. Writes
`benchmarks/results/bench.json`, the tables in `docs/performance.md` and the plots beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.bench_log import Log
from benchmarks.bench_parts import Settings, measure_curves, measure_memory, measure_tiny
from benchmarks.bench_peers import PEERS, measure_peers
from benchmarks.bench_report import summarise, write_docs

RESULTS = Path(__file__).parent / "results" / "bench.json"
PARTS = {
    "peers": measure_peers,
    "tiny": measure_tiny,
    "curves": measure_curves,
    "memory": measure_memory,
}
_PACKAGES = (
    "keras",
    "tensorflow",
    "torch",
    "segment-anything-py",
    "transformers",
    "keras-hub",
    "numpy",
)


def main() -> int:
    arguments = _parse_arguments()
    if arguments.anew:
        arguments.log.unlink(missing_ok=True)
    settings = Settings(
        model=arguments.model,
        contenders=tuple(arguments.contenders),
        photos=tuple(arguments.photos),
        points_per_side=arguments.points_per_side,
        repeats=arguments.repeats,
        whole=arguments.whole,
        threads=arguments.threads,
        photo_folder=arguments.photo_folder,
    )
    log = Log(arguments.log)
    if arguments.measure:
        for part in arguments.parts or PARTS:
            PARTS[part](settings, log)
    document = {"environment": _environment(), **summarise(log.entries)}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.docs:
        write_docs(document)
    print(f"written: {arguments.results}")
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none")
    parser.add_argument("--model", default="vit_b", help="seeded weights of which sizes")
    parser.add_argument("--contenders", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--photos", nargs="+", default=["flower"], help="for whole photos")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="of every stage")
    parser.add_argument(
        "--whole", action=argparse.BooleanOptionalAction, default=True, help="whole photos too"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--photo-folder", type=Path, help="30 photos of `tiny`'s comparison")
    parser.add_argument("--log", type=Path, default=RESULTS.with_suffix(".jsonl"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--anew", action="store_true", help="forget what the log holds")
    parser.add_argument(
        "--measure", action=argparse.BooleanOptionalAction, default=True, help="or report alone"
    )
    parser.add_argument(
        "--docs", action=argparse.BooleanOptionalAction, default=True, help="write docs/ too"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"There is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def _environment() -> dict[str, Any]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "processor": _processor(),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
