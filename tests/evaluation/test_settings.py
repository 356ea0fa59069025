from __future__ import annotations

import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.evaluation.settings import load_evaluation

CLICKS = """
kind: clicks
dataset: {format: bsds, images: photos, annotations: truth}
"""


def test_defaults_are_the_papers_recipe() -> None:
    config = load_evaluation(CLICKS)

    assert (config.clicks.clicks, config.clicks.placements) == (5, ("center", "random"))
    assert config.proposals.box_nms_thresh == 0.9
    assert (config.edges.points_per_side, config.edges.nms_threshold) == (16, 0.7)
    assert config.edges.max_distance == 0.0075
    assert config.model.variant == "tiny"


def test_overrides_win() -> None:
    config = load_evaluation(
        CLICKS, overrides=["clicks.clicks=2", "dataset.limit=3", "worst=0", "model.variant=vit_b"]
    )

    assert (config.clicks.clicks, config.worst) == (2, 0)
    assert config.dataset is not None
    assert (config.dataset.limit, config.dataset.format) == (3, "bsds")


@pytest.mark.parametrize(
    ("document", "overrides", "message"),
    [
        pytest.param("kind: [", (), "valid YAML", id="no-yaml"),
        pytest.param("- 1", (), "mapping", id="list"),
        pytest.param("", (), "kind must be given", id="empty"),
        pytest.param("kind: klicks", (), "clicks", id="unknown-kind"),
        pytest.param("kind: clicks", (), "section dataset", id="no-dataset"),
        pytest.param("kind: agreement", (), "section agreement", id="no-runs"),
        pytest.param("kind: agreement\nagreement: {first: a}", (), "second must be", id="one-run"),
        pytest.param(CLICKS, ("clicks.click=2",), "mean clicks.clicks?", id="near-key"),
        pytest.param(CLICKS, ("datset.limit=2",), "mean dataset", id="near-section"),
        pytest.param(CLICKS, ("clicks.clicks=0",), "clicks.clicks", id="range"),
        pytest.param(CLICKS, ("clicks.clicks=yes",), "true or false", id="switch-as-number"),
        pytest.param(CLICKS, ("clicks",), "key=value", id="override-without-value"),
        pytest.param(CLICKS, ("kind.x=1",), "must be a mapping", id="override-inside-value"),
        pytest.param(CLICKS, ("proposals.limits=[100, 10]",), "ascend", id="order"),
        pytest.param(CLICKS, ("kind=edges", "dataset.format=coco"), "format bsds", id="edges"),
    ],
)
def test_fault_is_named(document: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_evaluation(document, overrides=overrides)

    assert message in str(caught.value)
