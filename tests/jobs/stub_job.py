"""A job like `jobs/generate_masks.py` with a function in place of the model. Ray runs this file.

    python stub_job.py STUB NOTES INPUT OUTPUT [OPTIONS]

NOTES is a folder in which each worker writes what it sees of the GPUs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from amg_pipeline.cli import main
from amg_pipeline.config import RunConfig
from amg_pipeline.distributed import driver


class _Nothing:
    def to_records(self) -> tuple[()]:
        return ()


def _find_nothing(pixels: Any) -> _Nothing:
    return _Nothing()


def _take_a_second(pixels: Any) -> _Nothing:
    time.sleep(1.0)
    return _Nothing()


def _fail_on_low_images(pixels: Any) -> _Nothing:
    """Stand in for a model that fails on whole shards: the first two photos of each four."""
    if pixels.shape[0] <= 6:
        raise RuntimeError("this image is too low")
    return _Nothing()


STUBS: dict[str, Callable[[Any], _Nothing]] = {
    "good": _find_nothing,
    "slow": _take_a_second,
    "failing": _fail_on_low_images,
}


def _make(config: RunConfig, *, stub: str, notes: str) -> Callable[[Any], _Nothing]:
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
    Path(notes, f"worker-{os.getpid()}").write_text(seen)
    return STUBS[stub]


if __name__ == "__main__":
    _, stub_name, notes_folder, *words = sys.argv
    make = partial(_make, stub=stub_name, notes=notes_folder)
    driver.run_distributed = partial(driver.run_distributed, make_generator=make)
    main(["run", *words])
