"""`--extend`, `--retry-status`, and tars and Parquet files as INPUT, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.errors import TransientStorageError
from amg_pipeline.shard_runner import runner
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.mask_table import load_masks
from tests.cli.conftest import Amg
from tests.photo_runs import stored_masks, write_photo
from tests.storage.tars import make_tar

pytestmark = pytest.mark.usefixtures("fake_model")


def fail(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(ref: Any, **options: Any) -> Any:
        if ref.image_id in names:
            raise TransientStorageError("the store did not answer")
        return load_image(ref, **options)

    monkeypatch.setattr(runner, "load_image", load)


@pytest.mark.parametrize("statuses", [["fetch_error,timeout"], ["timeout", "fetch_error"]])
def test_retry_status_heals_a_run(
    amg: Amg,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statuses: list[str],
) -> None:
    assert amg("run", photos, tmp_path / "undisturbed", "--local", "--shard-size", 2).code == 0
    command = ("run", photos, tmp_path / "out", "--local", "--shard-size", 2)
    with monkeypatch.context() as patch:
        fail(("001.png", "006.png"), patch)
        assert amg(*command).code == 3
    assert amg(*command).code == 3
    options = [text for names in statuses for text in ("--retry-status", names)]
    planned = amg("plan", *command[1:3], *command[4:], *options)
    assert "4 shards: 2 done, 2 to do, of which 2 rows again" in planned.out
    ended = amg(*command, *options)
    assert (ended.code, ended.err) == (0, "")
    assert stored_masks(tmp_path / "out") == stored_masks(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        ("fetch_eror", "did you mean fetch_error"),
        ("ok", "must name some of decode_error"),
        ("timeout,", "Received: ''"),
    ],
)
def test_unknown_statuses_are_refused(
    amg: Amg, photos: Path, tmp_path: Path, statuses: str, message: str
) -> None:
    ended = amg("run", photos, tmp_path / "out", "--local", "--retry-status", statuses)
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "out").exists()


def test_extend_adds_new_images(amg: Amg, photos: Path, tmp_path: Path) -> None:
    command = ("run", photos, tmp_path / "out", "--local", "--shard-size", 3)
    assert amg(*command).code == 0
    write_photo(photos / "000b.png")
    assert amg(*command).out.startswith("7 images")
    dry = amg("plan", *command[1:3], *command[4:], "--extend", "--dry-run")
    assert dry.out.startswith("8 images, 0.0 MiB, 4 shards: 3 done, 1 to do")
    ended = amg(*command, "--extend")
    assert ended.code == 0
    assert ended.out.startswith("8 images, 0.0 MiB, 4 shards: 3 done, 1 to do")
    assert "8 images" in ended.last_line
    assert amg(*command, "--extend").out.startswith("8 images, 0.0 MiB, 4 shards: 4 done, 0 to do")
    assert amg("verify", tmp_path / "out").code == 0


def test_extend_of_a_choice_is_refused(amg: Amg, photos: Path, tmp_path: Path) -> None:
    command = ("run", photos, tmp_path / "out", "--local", "--limit", 3)
    assert amg(*command).code == 0
    ended = amg(*command, "--extend")
    assert ended.code == 2
    assert "--extend needs a run of all images" in ended.err


def test_tar_to_masks(amg: Amg, photos: Path, tmp_path: Path) -> None:
    tar = make_tar({f"./{path.name}": path.read_bytes() for path in sorted(photos.iterdir())})
    (tmp_path / "photos.tar").write_bytes(tar)
    assert amg("run", photos, tmp_path / "loose", "--local").code == 0
    assert amg("run", tmp_path / "photos.tar", tmp_path / "out", "--local").code == 0
    loose, packed = (load_masks(str(tmp_path / name)).to_table() for name in ("loose", "out"))
    assert packed["masks"].equals(loose["masks"])
    assert packed["image_id"].to_pylist() == [
        f"photos.tar/{name}" for name in loose["image_id"].to_pylist()
    ]
    assert amg("verify", tmp_path / "out").code == 0
    assert amg("report", tmp_path / "out", tmp_path / "page").code == 0


def test_damaged_tar_is_wrong_usage(amg: Amg, photos: Path, tmp_path: Path) -> None:
    tar = make_tar({"a.png": (photos / "000.png").read_bytes()})
    (tmp_path / "cut.tar").write_bytes(tar[:600])
    ended = amg("run", tmp_path / "cut.tar", tmp_path / "out", "--local")
    assert ended.code == 2
    assert "cut.tar" in ended.err
    assert not (tmp_path / "out").exists()
