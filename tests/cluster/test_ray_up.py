"""The `ray up` files, against the schema that Ray itself ships and checks them with."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import CLUSTER, RAY_UP_FILES, load_yaml

SCHEMA = json.loads(
    (Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8")
)


@pytest.fixture(params=RAY_UP_FILES)
def config(request: pytest.FixtureRequest) -> Any:
    return load_yaml(request.param)


def _start_options(commands: list[str]) -> dict[str, str]:
    started = next(command for command in commands if "ray start" in command)
    return dict(re.findall(r"--([a-z-]+)(?:=(\S+))?", started))


def test_file_matches_the_schema_of_ray(config: Any) -> None:
    jsonschema.validate(config, SCHEMA)


def test_an_unknown_field_does_not_match(config: Any) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        jsonschema.validate({**config, "idle_timeout": 5}, SCHEMA)


def test_ray_completes_the_file_without_a_warning(
    config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        prepared = prepare_config(copy.deepcopy(config))

    validate_config(prepared)
    assert not caplog.records
    # Ray's defaults for these install packages over those of the image.
    assert prepared["head_setup_commands"] == config["setup_commands"]
    assert prepared["worker_setup_commands"] == config["setup_commands"]


def test_head_takes_no_work_and_is_never_preempted(config: Any) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    options = _start_options(config["head_start_ray_commands"])

    assert head["resources"] == {"CPU": 0}
    assert options["num-cpus"] == options["num-gpus"] == "0"
    assert "SPOT" not in json.dumps(head).upper()


def test_workers_are_spot_and_scale_to_none(config: Any) -> None:
    workers = dict(config["available_node_types"])
    del workers[config["head_node_type"]]

    assert workers
    for worker in workers.values():
        assert worker["min_workers"] == 0
        assert 0 < worker["max_workers"] <= config["max_workers"]
        assert "SPOT" in json.dumps(worker["node_config"]).upper()
        assert {"IamInstanceProfile", "serviceAccounts"} & set(worker["node_config"]), (
            "workers cannot reach the buckets"
        )
    assert "--gpus=all" in config["docker"]["worker_run_options"]


def test_the_head_on_aws_may_hand_on_the_workers_role() -> None:
    """Ray's own role for the head may start machines, but give them no role: no worker comes up."""
    config = load_yaml("aws-spot.yaml")
    workers = config["available_node_types"]["gpu_spot"]["node_config"]["IamInstanceProfile"]
    policy = json.loads((CLUSTER / "aws-pass-role.json").read_text(encoding="utf-8"))

    (statement,) = policy["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "iam:PassRole")
    assert statement["Resource"].endswith(f":role/{workers['Name']}")
    text = (CLUSTER / "aws-spot.yaml").read_text(encoding="utf-8")
    assert "file://cluster/aws-pass-role.json" in text
    # As Ray names the role that it makes.
    assert "--role-name ray-autoscaler-v1 " in text


def test_nothing_listens_to_the_network_without_a_token(config: Any) -> None:
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert _start_options(config["head_start_ray_commands"])["dashboard-host"] == "127.0.0.1"


def test_every_node_shows_its_metrics_on_one_port(config: Any) -> None:
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert _start_options(commands)["metrics-export-port"] == "8080"


def test_options_of_ray_start_exist(config: Any) -> None:
    from ray.scripts.scripts import start

    known = {name.removeprefix("--") for option in start.params for name in option.opts}
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert set(_start_options(commands)) <= known
