"""From settings to numbers, with a SAM that is small enough to run here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.evaluation import measuring
from amg_pipeline.evaluation.measuring import prepare
from amg_pipeline.evaluation.results import Evaluation
from amg_pipeline.evaluation.settings import load_evaluation
from tests.evaluation.discs import SIZE, disc
from tests.evaluation.test_datasets import ground_truth
from tests.fakes import DiscModel, Shape, coordinate_image
from tests.training.small_preset import SMALL

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bsds")
    for name in ("images", "truth"):
        (root / name).mkdir()
    for name in ("a", "b"):
        Image.fromarray(coordinate_image(*SIZE)).save(root / f"images/{name}.png")
        labels = 1 + disc(30, 20, 9).astype(np.uint16)
        (root / f"truth/{name}.mat").write_bytes(ground_truth(labels))
    return root


@pytest.fixture(scope="module")
def sam() -> object:
    import keras

    from amg_pipeline.sam import SAM

    keras.utils.set_random_seed(0)
    return SAM.from_preset(SMALL)


def measure(
    monkeypatch: pytest.MonkeyPatch, sam: object, folder: Path, kind: str, *overrides: str
) -> Evaluation:
    monkeypatch.setattr(measuring, "load_model", lambda settings: sam)
    document = (
        f"kind: {kind}\nworst: 1\n"
        f"dataset: {{format: bsds, images: {folder}/images, annotations: {folder}/truth}}"
    )
    measurement = prepare(load_evaluation(document, overrides=overrides))
    assert measurement.num_images == 2
    counted: list[int] = []
    found = measurement.run(counted.append)
    assert len(counted) == 2
    assert found.summary["images"] == 2
    assert len(found.worst) == 1
    return found


def test_clicks(monkeypatch: pytest.MonkeyPatch, sam: object, folder: Path) -> None:
    found = measure(
        monkeypatch, sam, folder, "clicks", "clicks.clicks=1", "clicks.placements=[random]"
    )

    assert found.summary["segments"] == 4
    assert set(found.summary["placements"]) == {"random"}
    assert len(found.rows["click"]) == 4


def test_proposals_are_not_filtered_by_scores(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    model = DiscModel([Shape("disc", 30.5, 20.5, 9.0, 9.0, sharpness=0.2, score=0.1)])

    found = measure(
        monkeypatch, model, folder, "proposals", "proposals.points_per_side=3",
        "proposals.box_nms_thresh=1.0", "proposals.limits=[5, 100]",
    )  # fmt: skip

    # The middle point gives three discs; each of the others the frame, nothing, and a small disc.
    assert found.summary["proposals_per_image"] == 3 + 8 * 2
    # The background is nearly the frame; the discs are known, but come after the others.
    recalls = found.summary["average_recall"]
    assert recalls["at_5"]["small"] == 0.0
    assert recalls["at_100"]["small"] > 0.9


def test_edges(monkeypatch: pytest.MonkeyPatch, sam: object, folder: Path) -> None:
    found = measure(
        monkeypatch, sam, folder, "edges", "edges.points_per_side=2", "edges.thresholds=3"
    )

    assert 0.0 <= found.summary["ods"] <= 1.0
    assert len(found.rows["threshold"]) == 6


def test_model_without_weights_is_refused_before_anything_is_read() -> None:
    document = "kind: clicks\ndataset: {format: bsds, images: /none, annotations: /none}"

    with pytest.raises(ConfigError, match="amg weights fetch vit_h"):
        prepare(load_evaluation(document, overrides=["model.variant=vit_h"]))
