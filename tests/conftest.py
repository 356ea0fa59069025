"""What every test runs under: the CPU, quiet native logs, and a fixed hypothesis profile."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Read by TensorFlow, JAX and Ray when they are first imported, so set before any test module is.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# The suite gives the same result each time and is not judged by the speed of a shared machine.
# The suite has minutes; for a longer search: HYPOTHESIS_EXAMPLES=1000 make test
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "40")),
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests, since it takes seconds to start; cores and GPUs are only logical."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        # Ray would believe that both GPUs are hidden.
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        ray.init(
            address="local",
            num_cpus=8,
            num_gpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield
    ray.shutdown()
