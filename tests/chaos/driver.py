"""A driver as the storm starts and kills it: `python -m tests.chaos.driver INPUT OUTPUT ...`.

It is `amg run` with a stub in place of the model, and can be told to die at a step of its writing,
or to have a worker die at a commit.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amg_pipeline.config import load_config
from amg_pipeline.distributed.cluster import connected
from amg_pipeline.distributed.driver import run_distributed
from amg_pipeline.planning import make_plan
from amg_pipeline.shard_runner import make_mask_generator
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.telemetry import configure_logging
from tests.distributed.stubs import DieAtCommit, SlowGenerator
from tests.photo_runs import accept, digest


def main() -> None:
    """Run, and end with the command line's codes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--address", required=True)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--shard-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--model", choices=("stub", "tiny"), default="stub")
    parser.add_argument("--die-at-write", type=int)
    parser.add_argument("--marks", type=Path)
    arguments = parser.parse_args()
    configure_logging()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.die_at_write is not None:
        _die_at_write(arguments.die_at_write)
    is_stub = arguments.model == "stub"
    config = load_config(
        settings={
            "images": {"input": arguments.input},
            "output": {"uri": arguments.output, "shard_size": arguments.shard_size},
            "amg": {"points_per_side": 4},
            "workers": {
                "workers": arguments.workers,
                "address": arguments.address,
                "image_timeout_seconds": 120.0,
                "decode_threads": 1,
            },
        }
    )
    stand_ins: dict[str, Any] = {"weights_digest": digest, "check_model": accept}
    plan = make_plan(config, package_version="0.1.0", cpu_count=1, **(stand_ins if is_stub else {}))
    make_generator: Any = SlowGenerator(arguments.seconds) if is_stub else make_mask_generator
    if arguments.marks is not None:
        make_generator = DieAtCommit(make_generator, arguments.marks)
    with connected(plan.config.workers):
        outcome = run_distributed(plan, make_generator=make_generator)
    sys.exit(0 if outcome.is_settled else 3)


def _die_at_write(number: int) -> None:
    """Have the n-th write of this process end it, before or after the object is there."""
    count = 0

    def deadly(write: Callable[..., None]) -> Callable[..., None]:
        def replaced(*arguments: Any) -> None:
            nonlocal count
            count += 1
            if count == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            write(*arguments)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        return replaced

    for name in ("put", "create"):
        setattr(ObjectStore, name, deadly(getattr(ObjectStore, name)))


if __name__ == "__main__":
    main()
