"""The runtime environment of a job, as Ray reads it."""

from __future__ import annotations

from ray.dashboard.modules.dashboard_sdk import parse_runtime_env_args
from ray.runtime_env import RuntimeEnv

from tests.cluster.files import CLUSTER

FILE = str(CLUSTER / "runtime-env.yaml")


def test_ray_takes_it_together_with_a_working_directory() -> None:
    parsed = parse_runtime_env_args(runtime_env=FILE, working_dir=".")

    assert set(RuntimeEnv(**parsed)) == {"env_vars", "working_dir"}


def test_a_submission_without_it_is_possible() -> None:
    assert parse_runtime_env_args(working_dir=".") == {"working_dir": "."}


def test_workers_that_share_a_gpu_can() -> None:
    assert parse_runtime_env_args(runtime_env=FILE)["env_vars"]["TF_FORCE_GPU_ALLOW_GROWTH"] == (
        "true"
    )


def test_it_sets_nothing_that_ray_or_the_package_sets_in_each_worker() -> None:
    variables = parse_runtime_env_args(runtime_env=FILE)["env_vars"]

    assert not {"OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "KERAS_BACKEND"} & set(variables)
