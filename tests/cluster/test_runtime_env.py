"""The runtime environment of a job, as Ray reads it."""

from __future__ import annotations

from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from ray.dashboard.modules.dashboard_sdk import parse_runtime_env_args
from ray.runtime_env import RuntimeEnv

from tests.cluster.files import CLUSTER

FILE = str(CLUSTER / "runtime-env.yaml")


def test_ray_takes_it_together_with_a_working_directory() -> None:
    parsed = parse_runtime_env_args(runtime_env=FILE, working_dir=".")

    assert set(RuntimeEnv(**parsed)) == {"env_vars", "working_dir"}


def test_a_submission_without_it_is_possible() -> None:
    assert parse_runtime_env_args(working_dir=".") == {"working_dir": "."}


def test_it_sets_nothing_that_a_worker_sets_itself() -> None:
    variables = parse_runtime_env_args(runtime_env=FILE)["env_vars"]

    assert not {"OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "KERAS_BACKEND"} & set(variables)


def test_variables_of_the_aws_client_exist() -> None:
    known = [name for _, name, *_ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values()]
    variables = parse_runtime_env_args(runtime_env=FILE)["env_vars"]

    assert all(name in known for name in variables)
