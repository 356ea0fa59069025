from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam import SAM
from amg_pipeline.sam.weights import load_weights
from amg_pipeline.training.embedding_cache import embedding_bytes
from amg_pipeline.training.labelled_views import LabelledViews
from amg_pipeline.training.runs import make_model, run_training
from amg_pipeline.training.settings import load_train_config
from amg_pipeline.training.sources.labelled_image import Labelled
from amg_pipeline.training.sources.synthetic import SceneImage
from tests.sam.small_sam import as_arrays
from tests.training.killable_training import CONFIG, build
from tests.training.small_preset import SMALL

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def weights_of(output: Path) -> list[np.ndarray]:
    sam = SAM.from_preset(SMALL)
    load_weights(sam, str(output / "weights.safetensors"))
    return as_arrays(sam.variables)


def start(output: Path) -> subprocess.Popen[bytes]:
    with output.with_suffix(".txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.training.killable_training", str(output)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def finish(output: Path) -> None:
    process = start(output)
    code = process.wait(600)
    assert code == 0, output.with_suffix(".txt").read_text()[-2000:]


def kill_at(output: Path, epoch: int, step: int) -> None:
    """Kill a training as soon as its checkpoint is at least so far."""
    process = start(output)
    try:
        while process.poll() is None:
            time.sleep(0.02)
            if position_of(output) >= (epoch, step):
                process.kill()
                break
    finally:
        process.kill()
        code = process.wait()
    assert code == -9, output.with_suffix(".txt").read_text()[-2000:]


def position_of(output: Path) -> tuple[int, int]:
    try:
        with np.load(output / "checkpoint.npz") as file:
            position = json.loads(bytes(file["position"]))
    except FileNotFoundError:
        return -1, -1
    return position["epoch"], position["step"]


@pytest.mark.training
@pytest.mark.timeout(900)
def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    finish(unbroken)
    kill_at(killed, 0, 2)  # within an epoch
    kill_at(killed, 2, 0)  # between two epochs, before a part joins: then a graph is made anew
    assert position_of(killed) == (2, 0)
    kill_at(killed, 2, 2)  # after a part has joined
    left = position_of(killed)
    finish(killed)
    assert (2, 2) <= left < (4, 0)
    for mine, other in zip(weights_of(killed), weights_of(unbroken), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)
    first, second = (folder / "log.csv" for folder in (killed, unbroken))
    logs = [np.genfromtxt(path, delimiter=",", names=True).tolist() for path in (first, second)]
    np.testing.assert_allclose(*logs, rtol=1e-4)
    assert (killed / "curves.svg").read_text().startswith("<svg")


@pytest.mark.training
def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    short = ["optimization.epochs=1", "optimization.steps_per_epoch=1", f"output={tmp_path}"]
    short += ["data.valid=[]", "freezing.trained_blocks=0"]
    run_training(load_train_config(CONFIG, overrides=short), io.StringIO(), build=build)
    for change in ("optimization.learning_rate=0.02", "data.train=[{format: synthetic, path: 4}]"):
        other = load_train_config(CONFIG, overrides=[*short, change])
        with pytest.raises(ConfigError, match=r"checkpoint.*settings"):
            run_training(other, io.StringIO(), build=build)


SHORT = ["optimization.epochs=1", "optimization.steps_per_epoch=1", "freezing.trained_blocks=0"]


def seen_scenes(monkeypatch: pytest.MonkeyPatch, data: list[str], output: Path) -> list[str]:
    """Which images a training looks at, those to measure on last."""
    seen: list[str] = []
    read = SceneImage.read

    def note(self: SceneImage, longest_side: int) -> Labelled:
        seen.append(self.name)
        return read(self, longest_side)

    monkeypatch.setattr(SceneImage, "read", note)
    config = load_train_config(CONFIG, overrides=[*SHORT, *data, f"output={output}"])
    run_training(config, io.StringIO(), build=build)
    return seen


@pytest.mark.training
def test_scenes_to_measure_on_are_no_scenes_to_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_scenes(monkeypatch, [], tmp_path)
    assert "scene-1000000000" in seen
    assert seen.count("scene-0") <= 1


@pytest.mark.training
@pytest.mark.parametrize(("views", "images"), [(2, 6), (1, 3)])
def test_embeddings_take_no_more_memory_than_they_may(
    views: int, images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = 3 * views * embedding_bytes(SAM.from_preset(SMALL))
    data = ["data.valid=[]", "freezing.cached_views=4", f"freezing.cached_bytes={cached}"]
    drawn: list[int] = []
    draw, whole = LabelledViews.draw, LabelledViews.draw_whole
    monkeypatch.setattr(
        LabelledViews, "draw", lambda self, i, rng: (drawn.append(i), draw(self, i, rng))[1]
    )
    monkeypatch.setattr(
        LabelledViews, "draw_whole", lambda self, i: (drawn.append(i), whole(self, i))[1]
    )
    seen_scenes(monkeypatch, data, tmp_path)
    assert len(drawn) == images


@pytest.mark.training
def test_a_folder_may_have_a_number_for_a_name(tmp_path: Path) -> None:
    config = load_train_config(
        CONFIG, overrides=["data.train=[{path: 2018}]", f"output={tmp_path}"]
    )
    with pytest.raises(ConfigError, match="2018"):
        run_training(config, io.StringIO(), build=build)


@pytest.mark.training
def test_a_training_without_masks_is_refused(tmp_path: Path) -> None:
    nothing = ["prompts.min_area=1.0", "data.valid=[]", f"output={tmp_path}"]
    config = load_train_config(CONFIG, overrides=[*SHORT, *nothing])
    with pytest.raises(ConfigError, match=r"prompts\.min_area.*epoch 1"):
        run_training(config, io.StringIO(), build=build)
    assert not (tmp_path / "weights.safetensors").exists()


def test_the_output_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    config = load_train_config(CONFIG, overrides=[f"output={tmp_path / 'file'}"])
    with pytest.raises(ConfigError, match="which is a file"):
        run_training(config, io.StringIO(), build=build)
    assert (tmp_path / "file").read_text() == "mine"


def test_published_sizes_need_weights() -> None:
    config = load_train_config(CONFIG, overrides=["output=x", "model.variant=vit_b"])
    with pytest.raises(ConfigError, match="vit_b"):
        make_model(config)
