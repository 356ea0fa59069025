from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.training import scene_cache
from amg_pipeline.training.scene_cache import SceneCache, SceneCacheMeta, render_scenes
from amg_pipeline.training.scenes import Scene, render_scene

pytestmark = pytest.mark.training

SIZE = 32


class Killed(BaseException):
    """Stands for a signal: nothing in the package may catch it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, seed: int) -> list[int]:
    """Make rendering stop at a seed; returns the list of seeds rendered."""
    rendered: list[int] = []

    def render(at: int, size: int) -> Scene:
        if at == seed:
            raise Killed
        rendered.append(at)
        return render_scene(at, size)

    monkeypatch.setattr(scene_cache, "render_scene", render)
    return rendered


def test_cache_holds_the_scenes_of_its_seeds(tmp_path: Path) -> None:
    cache = render_scenes(tmp_path / "a", count=3, size=SIZE, seed=7, processes=1)
    assert cache.meta == SceneCacheMeta(count=3, size=SIZE, seed=7)
    for i in range(3):
        scene = render_scene(7 + i, SIZE)
        np.testing.assert_array_equal(cache.images[i], scene.image)
        np.testing.assert_array_equal(cache.label_maps[i], scene.label_maps)
    assert isinstance(cache.images, np.memmap)
    assert not cache.images.flags.writeable
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "images.npy",
        "label_maps.npy",
        "meta.json",
        "sizes.npy",
    }


def test_two_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    for name, processes in (("one", 1), ("two", 2)):
        render_scenes(tmp_path / name, count=40, size=SIZE, processes=processes)
    for file in ("images.npy", "label_maps.npy", "sizes.npy", "meta.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_killed_rendering_is_not_a_cache_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(monkeypatch, 40)
    with pytest.raises(Killed):
        render_scenes(tmp_path, count=50, size=SIZE, processes=1)
    with pytest.raises(ConfigError, match="finished scene cache"):
        SceneCache.open(tmp_path)
    rendered = kill_at(monkeypatch, -1)
    cache = render_scenes(tmp_path, count=50, size=SIZE, processes=1)
    assert rendered == list(range(32, 50)), "the finished chunk is kept"
    np.testing.assert_array_equal(cache.images[5], render_scene(5, SIZE).image)
    np.testing.assert_array_equal(cache.images[45], render_scene(45, SIZE).image)


@pytest.mark.parametrize("renames", [0, 1, 2, 3], ids=["none", "one", "two", "all"])
def test_killed_while_publishing_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    whole = Path.replace
    left = [renames]

    def replace(self: Path, target: Path) -> Path:
        if Path(target).suffix == ".npy":
            if not left[0]:
                raise Killed
            left[0] -= 1
        elif Path(target).name == "meta.json":
            raise Killed
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(Killed):
        render_scenes(tmp_path, count=2, size=SIZE, processes=1)
    with pytest.raises(ConfigError):
        SceneCache.open(tmp_path)
    monkeypatch.undo()
    rendered = kill_at(monkeypatch, -1)
    cache = render_scenes(tmp_path, count=2, size=SIZE, processes=1)
    assert rendered == []
    np.testing.assert_array_equal(cache.images[1], render_scene(1, SIZE).image)


def test_finished_cache_is_not_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render_scenes(tmp_path, count=2, size=SIZE, processes=1)
    kill_at(monkeypatch, 0)
    assert render_scenes(tmp_path, count=2, size=SIZE, processes=1).meta.count == 2


@pytest.mark.parametrize(
    "change", [{"count": 3}, {"size": 40}, {"seed": 1}], ids=lambda change: next(iter(change))
)
def test_cache_of_other_settings_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    settings = {"count": 2, "size": SIZE, "seed": 0}
    render_scenes(tmp_path, **settings, processes=1)
    with pytest.raises(ConfigError, match=next(iter(change))):
        render_scenes(tmp_path, **(settings | change), processes=1)
    with pytest.raises(ConfigError, match=next(iter(change))):
        SceneCache.open(tmp_path, expected=SceneCacheMeta(**(settings | change)))


def test_cache_of_another_generator_is_refused(tmp_path: Path) -> None:
    render_scenes(tmp_path, count=1, size=SIZE, processes=1)
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"scenes_version": 0}))
    with pytest.raises(ConfigError, match="scenes_version"):
        render_scenes(tmp_path, count=1, size=SIZE, processes=1)


def test_half_rendered_cache_of_other_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(monkeypatch, 1)
    with pytest.raises(Killed):
        render_scenes(tmp_path, count=2, size=SIZE, processes=1)
    with pytest.raises(ConfigError, match="seed"):
        render_scenes(tmp_path, count=2, size=SIZE, seed=5, processes=1)


@pytest.mark.parametrize("text", ["", "{}", '{"count": 1, "colour": 3}', "[1]"])
def test_unreadable_meta_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(ConfigError, match="meta"):
        SceneCache.open(tmp_path)


def test_arrays_that_do_not_fit_the_meta_are_refused(tmp_path: Path) -> None:
    render_scenes(tmp_path, count=2, size=SIZE, processes=1)
    np.save(tmp_path / "images.npy", np.zeros((1, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(ConfigError, match="shapes"):
        SceneCache.open(tmp_path)
    (tmp_path / "images.npy").unlink()
    with pytest.raises(ConfigError, match=r"images\.npy"):
        SceneCache.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"count": 0}, {"size": 31}, {"seed": -1}, {"processes": 0}],
    ids=lambda change: next(iter(change)),
)
def test_out_of_range_argument_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, int]
) -> None:
    arguments = {"count": 2, "size": SIZE, "seed": 0, "processes": 1} | change
    with pytest.raises(ConfigError, match=next(iter(change)).removesuffix("es")):
        render_scenes(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()
