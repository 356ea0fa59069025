"""The Kubernetes manifests: pods against Kubernetes' schema, the rest against KubeRay's fields."""

from __future__ import annotations

import copy
import re
import shlex
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from tests.cluster.files import ROOT, load_yaml, pinned_version
from tests.cluster.kuberay_models import PodMonitor, RayCluster, RayJob

KUBERNETES = "1.37"
MODELS: dict[str, type[BaseModel]] = {
    "raycluster.yaml": RayCluster,
    "rayjob.yaml": RayJob,
    "pod-monitor.yaml": PodMonitor,
}


def _load(name: str) -> Any:
    return load_yaml(f"kuberay/{name}")


def _cluster_spec() -> Any:
    return _load("raycluster.yaml")["spec"]


def _templates() -> list[Any]:
    spec = _cluster_spec()
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def _validate_pod(template: Any) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", MODELS)
def test_manifest_has_only_known_fields_and_values(name: str) -> None:
    MODELS[name].model_validate(_load(name))


@pytest.mark.parametrize("name", MODELS)
def test_manifest_with_an_unknown_field_is_refused(name: str) -> None:
    document = _load(name)
    document["spec"]["backofLimit"] = 3

    with pytest.raises(ValidationError, match="backofLimit"):
        MODELS[name].model_validate(document)


def test_service_account_matches_the_schema_of_kubernetes() -> None:
    kubernetes_validate.validate(_load("service-account.yaml"), KUBERNETES, strict=True)


@pytest.mark.parametrize("template", _templates(), ids=["head", "worker"])
def test_pods_match_the_schema_of_kubernetes(template: Any) -> None:
    _validate_pod(template)


def test_pod_with_an_unknown_field_does_not_match() -> None:
    template = copy.deepcopy(_templates()[0])
    template["spec"]["containers"][0]["resource"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="resource"):
        _validate_pod(template)


def test_job_makes_the_cluster_of_the_other_manifest() -> None:
    assert _load("rayjob.yaml")["spec"]["rayClusterSpec"] == _cluster_spec()


def test_ray_is_the_version_of_the_image() -> None:
    assert _cluster_spec()["rayVersion"] == pinned_version("ray")


def test_head_takes_no_work() -> None:
    assert _cluster_spec()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_workers_have_a_gpu_each_and_scale_to_none() -> None:
    (group,) = _cluster_spec()["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    resources = container["resources"]

    assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert resources["requests"] == resources["limits"]
    # KubeRay takes it from the limit; both would have to agree.
    assert "num-gpus" not in group["rayStartParams"]
    taints = {toleration["key"] for toleration in group["template"]["spec"]["tolerations"]}
    assert "nvidia.com/gpu" in taints


@pytest.mark.parametrize("template", _templates(), ids=["head", "worker"])
def test_pods_are_the_service_account(template: Any) -> None:
    name = _load("service-account.yaml")["metadata"]["name"]

    assert template["spec"]["serviceAccountName"] == name


def test_job_runs_what_the_image_has() -> None:
    workdir = re.search(r"^WORKDIR (\S+)$", (ROOT / "cluster/Dockerfile").read_text(), re.M)
    assert workdir
    words = shlex.split(_load("rayjob.yaml")["spec"]["entrypoint"])
    files = [word for word in words if word.startswith("/")]

    assert words[0] == "python"
    assert len(files) == 2
    for file in files:
        relative = file.removeprefix(f"{workdir[1]}/")
        assert relative.startswith("jobs/")
        assert (ROOT / relative).is_file()


def test_job_asks_for_as_many_workers_as_the_cluster_can_have() -> None:
    # Left to itself a run takes the GPUs that are there, and none are there when it starts.
    words = shlex.split(_load("rayjob.yaml")["spec"]["entrypoint"])
    (group,) = _cluster_spec()["workerGroupSpecs"]

    assert words[words.index("--workers") + 1] == str(group["maxReplicas"])


def test_job_has_the_runtime_environment_of_a_submission() -> None:
    runtime_env = yaml.safe_load(_load("rayjob.yaml")["spec"]["runtimeEnvYAML"])

    assert runtime_env == load_yaml("runtime-env.yaml")


def test_job_ends_with_its_cluster() -> None:
    spec = _load("rayjob.yaml")["spec"]

    assert spec["shutdownAfterJobFinishes"] is True
    # KubeRay accepts a time to live only together with the shutdown.
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
