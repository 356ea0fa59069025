"""Prometheus' configuration and Grafana's dashboard, against the metrics that a run has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import promql_parser
import pytest
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from amg_pipeline.distributed.metrics import METRIC_NAMES
from tests.cluster.files import CLUSTER, load_yaml

#: Ray puts this in front of every metric.
PREFIX = "ray_"
#: Grafana's own variables, and ours, as they are when Prometheus sees them.
VARIABLES = {"$__rate_interval": "1m", "$session": ".*"}
Duration = Annotated[str, StringConstraints(pattern=r"^\d+(ms|s|m)$")]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Authorization(_Fields):
    type: Literal["Bearer"]
    credentials_file: str


class HttpDiscovery(_Fields):
    url: Annotated[str, StringConstraints(pattern=r"^http://")]
    refresh_interval: Duration
    authorization: Authorization


class MetricRelabeling(_Fields):
    regex: str
    action: Literal["labeldrop"]


class ScrapeJob(_Fields):
    job_name: str
    http_sd_configs: list[HttpDiscovery]
    metric_relabel_configs: list[MetricRelabeling]


class Global(_Fields):
    scrape_interval: Duration


class Prometheus(_Fields):
    """What we use of Prometheus' configuration; `promtool check config` passed it whole."""

    model_config = ConfigDict(extra="forbid", strict=True)
    scrape_configs: list[ScrapeJob]


def _dashboard() -> Any:
    return json.loads((CLUSTER / "grafana-dashboard.json").read_text(encoding="utf-8"))


def _panels() -> list[Any]:
    return [panel for panel in _dashboard()["panels"] if panel["type"] != "row"]


def _expressions() -> list[str]:
    return [target["expr"] for panel in _panels() for target in panel["targets"]]


def _metrics_of(expression: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each metric of an expression, with the labels that it is filtered by."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    found: list[Any] = []

    def collect(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), collect)
    for selector in found:
        yield selector.name, [matcher.name for matcher in selector.matchers.matchers]


def _declared_name(metric: str) -> str:
    """Return the name that the package gives a metric of Ray's."""
    name = metric.removeprefix(PREFIX)
    return name if name in METRIC_NAMES else name.removesuffix("_bucket")


def test_prometheus_configuration_has_only_known_fields() -> None:
    document = load_yaml("prometheus.yaml")

    Global.model_validate(document.pop("global"))
    Prometheus.model_validate(document)


def test_prometheus_configuration_with_an_unknown_field_is_refused() -> None:
    document = load_yaml("prometheus.yaml")
    del document["global"]
    document["scrape_configs"][0]["http_sd_config"] = []

    with pytest.raises(ValidationError, match="http_sd_config"):
        Prometheus.model_validate(document)


def test_dashboard_shows_only_metrics_that_the_package_has() -> None:
    used = {metric for expression in _expressions() for metric, _ in _metrics_of(expression)}

    assert all(metric.startswith(PREFIX) for metric in used)
    assert {_declared_name(metric) for metric in used} <= set(METRIC_NAMES)


def test_dashboard_shows_every_metric_that_the_package_has() -> None:
    used = {metric for expression in _expressions() for metric, _ in _metrics_of(expression)}

    assert {_declared_name(metric) for metric in used} == set(METRIC_NAMES)


@pytest.mark.parametrize("expression", _expressions())
def test_every_series_is_of_the_chosen_session(expression: str) -> None:
    selectors = list(_metrics_of(expression))

    assert selectors
    assert all("SessionName" in labels for _, labels in selectors)


def test_a_histogram_is_shown_by_its_buckets_alone() -> None:
    # Ray estimates the sum of a histogram from its buckets, so a mean would be wrong.
    metrics = {metric for expression in _expressions() for metric, _ in _metrics_of(expression)}

    assert "ray_amg_stage_seconds_bucket" in metrics
    assert not {metric for metric in metrics if metric.endswith("_sum")}


def test_panels_do_not_overlap_and_have_distinct_ids() -> None:
    panels = _dashboard()["panels"]
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        covered = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & covered, panel["title"]
        cells |= covered
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("panel", _panels(), ids=lambda panel: panel["title"])
def test_panel_says_what_it_shows(panel: Any) -> None:
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"])
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_variables_of_the_dashboard_are_declared() -> None:
    names = {variable["name"] for variable in _dashboard()["templating"]["list"]}

    assert names == {"datasource", "session"}
