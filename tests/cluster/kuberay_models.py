"""The fields of KubeRay's and the Prometheus Operator's resources that our manifests use.

No package registry has the schemas of these resources. These models have the names, types and
values of KubeRay 1.7.0 (`ray.io/v1`) and of the Prometheus Operator's `monitoring.coreos.com/v1`;
the manifests were compared with the whole schema of KubeRay 1.7.0 when they were written. What is
inside a pod's template is checked against Kubernetes' own schema instead.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: KubeRay makes names of pods and services out of these.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(_Fields):
    name: Name
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class PodTemplate(_Fields):
    metadata: dict[str, Any] = {}
    spec: dict[str, Any]


class AuthOptions(_Fields):
    mode: Literal["disabled", "token"]


class AutoscalerOptions(_Fields):
    version: Literal["v1", "v2"]
    idleTimeoutSeconds: int  # noqa: N815 - the field's name in Kubernetes, as below


class HeadGroup(_Fields):
    # Text each: they become options of `ray start`.
    rayStartParams: dict[str, str]  # noqa: N815
    template: PodTemplate


class WorkerGroup(HeadGroup):
    groupName: Name  # noqa: N815
    replicas: int
    minReplicas: int  # noqa: N815
    maxReplicas: int  # noqa: N815


class ClusterSpec(_Fields):
    rayVersion: str  # noqa: N815
    authOptions: AuthOptions  # noqa: N815
    enableInTreeAutoscaling: bool  # noqa: N815
    autoscalerOptions: AutoscalerOptions  # noqa: N815
    headGroupSpec: HeadGroup  # noqa: N815
    workerGroupSpecs: list[WorkerGroup]  # noqa: N815


class RayCluster(_Fields):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class SubmitterConfig(_Fields):
    backoffLimit: Annotated[int, Field(ge=0)]  # noqa: N815


class JobSpec(_Fields):
    entrypoint: str
    runtimeEnvYAML: str  # noqa: N815
    submissionMode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]  # noqa: N815
    backoffLimit: Annotated[int, Field(ge=0)]  # noqa: N815
    submitterConfig: SubmitterConfig  # noqa: N815
    preRunningDeadlineSeconds: Annotated[int, Field(ge=1)]  # noqa: N815
    activeDeadlineSeconds: Annotated[int, Field(ge=1)]  # noqa: N815
    shutdownAfterJobFinishes: bool  # noqa: N815
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)]  # noqa: N815
    rayClusterSpec: ClusterSpec  # noqa: N815


class RayJob(_Fields):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


class Expression(_Fields):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]


class Selector(_Fields):
    matchExpressions: list[Expression]  # noqa: N815


class Relabeling(_Fields):
    sourceLabels: list[str]  # noqa: N815
    targetLabel: str  # noqa: N815


class Endpoint(_Fields):
    port: str
    interval: Annotated[str, StringConstraints(pattern=r"^\d+(ms|s|m)$")]
    relabelings: list[Relabeling]


class PodMonitorSpec(_Fields):
    selector: Selector
    podMetricsEndpoints: list[Endpoint]  # noqa: N815


class PodMonitor(_Fields):
    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: PodMonitorSpec
