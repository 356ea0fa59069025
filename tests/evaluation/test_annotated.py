"""Scenes of the training are images like any other."""

from __future__ import annotations

import numpy as np

from amg_pipeline.evaluation.annotated import from_label_maps
from amg_pipeline.evaluation.clicks import evaluate_clicks
from amg_pipeline.training.scenes import render_scene
from tests.evaluation.discs import GrowingModel


def test_scenes_can_be_clicked_at() -> None:
    scene = render_scene(7, size=64)
    image = from_label_maps("scene 7", scene.image, scene.label_maps)

    found = evaluate_clicks(
        [image], GrowingModel(radius=5, size=(64, 64)), clicks=1, placements=["center"]
    )

    expected = sum(len(np.unique(labels[labels > 0])) for labels in scene.label_maps)
    assert found.summary["segments"] == expected > 0
    assert found.summary["placements"]["center"]["clicks"][0]["best_of_three"] > 0
