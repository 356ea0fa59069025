"""`amg evaluate`: numbers on the screen, numbers, rows and pictures in the output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from amg_pipeline.evaluation import measuring
from amg_pipeline.evaluation.proposals import Proposal
from amg_pipeline.evaluation.results import Evaluation
from amg_pipeline.storage.local_files import LocalFiles
from tests.cli.conftest import Amg
from tests.evaluation.discs import SIZE, disc
from tests.evaluation.test_datasets import ground_truth


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two photos with segments, and one that is damaged."""
    images, truth = tmp_path / "images", tmp_path / "truth"
    images.mkdir()
    truth.mkdir()
    for name, radius in (("a", 8), ("b é", 12)):
        Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(images / f"{name}.png")
        labels = 1 + disc(30, 20, radius).astype(np.uint16)
        (truth / f"{name}.mat").write_bytes(ground_truth(labels))
    path = tmp_path / "config.yaml"
    path.write_text(
        "kind: proposals\n"
        f"output: {tmp_path / 'out'}\n"
        f"dataset: {{format: bsds, images: '{images}', annotations: '{truth}'}}\n"
    )
    return path


@pytest.fixture(autouse=True)
def _disc_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from amg_pipeline.amg.rle import encode_mask

    monkeypatch.setattr(measuring, "load_model", lambda settings: settings.variant)
    proposals = [Proposal(encode_mask(disc(30, 20, 8)), 0.9)]
    monkeypatch.setattr(measuring, "make_proposer", lambda sam, settings: lambda pixels: proposals)


def test_numbers_rows_and_pictures(amg: Amg, config: Path, tmp_path: Path) -> None:
    ended = amg("evaluate", config, "--set", "worst=1")

    out = tmp_path / "out"
    assert ended.code == 0, ended.err
    assert "Average recall" in ended.out
    summary = json.loads((out / "summary.json").read_text())
    # Of the four segments it has one exactly; another has IoU 0.44 with it.
    assert summary["average_recall"]["at_10"]["all"] == pytest.approx(0.25)
    assert summary["settings"]["dataset"]["format"] == "bsds"
    assert "clicks" not in summary["settings"]
    rows = pq.read_table(out / "rows.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == ["a.png", "b é.png"]
    (picture,) = (out / "worst").iterdir()
    assert picture.name == "000-0.000-b_.png-2_segments.png"
    with Image.open(picture) as shown:
        assert shown.size == (60 + 8 + 60, 40)


def test_json_is_all_of_standard_output(amg: Amg, config: Path) -> None:
    ended = amg("evaluate", config, "--json", "--set", "output=null")

    assert json.loads(ended.out)["images"] == 2


def test_credentials_are_in_no_result(amg: Amg, config: Path) -> None:
    weights = "model.weights=https://host/w.pth?X-Amz-Signature=secret"
    ended = amg("evaluate", config, "--json", "--set", "output=null", "--set", weights)

    assert ended.code == 0, ended.err
    assert "https://host/w.pth" in ended.out
    assert "secret" not in ended.out


def test_no_address_of_the_settings_keeps_credentials(
    amg: Amg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agreement.yaml"
    path.write_text(
        "kind: agreement\n"
        "output: memory://key:secret@credentials/out\n"
        "agreement: {first: 's3://key:secret@bucket/a', second: 'https://h/b?sig=secret'}\n"
    )
    found = Evaluation(summary={}, tables=(), rows={"image_id": np.array(["a.png"])})
    measurement = measuring.Measurement(1, lambda on_image: found)
    monkeypatch.setattr(measuring, "prepare", lambda settings: measurement)

    ended = amg("evaluate", path, "--json")

    assert ended.code == 0, ended.err
    assert "secret" not in ended.out + ended.err
    settings = json.loads(ended.out)["settings"]
    assert settings["output"] == "memory://credentials/out"
    assert settings["agreement"] == {"first": "s3://bucket/a", "second": "https://h/b"}


def test_unreadable_annotation_ends_with_3_and_the_others_are_measured(
    amg: Amg, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LocalFiles.read

    def refuse(self: LocalFiles, key: str) -> bytes:
        if key == "b é.mat":
            raise PermissionError(13, "Permission denied")
        return read(self, key)

    monkeypatch.setattr(LocalFiles, "read", refuse)
    ended = amg("evaluate", config)

    assert ended.code == 3
    assert "'b é.png'" in ended.err
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["images"] == 1
    assert list(summary["failed"]) == ["b é.png"]
    assert "Permission denied" in summary["failed"]["b é.png"]


def test_output_is_not_overwritten_unasked(amg: Amg, config: Path) -> None:
    assert amg("evaluate", config).code == 0

    refused, allowed = amg("evaluate", config), amg("evaluate", config, "--overwrite")

    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert allowed.code == 0


def test_damaged_image_ends_with_3_and_is_named(amg: Amg, config: Path, tmp_path: Path) -> None:
    (tmp_path / "images/a.png").write_bytes(b"no image")

    ended = amg("evaluate", config)

    assert ended.code == 3
    assert "1 of 2 images" in ended.err
    assert "'a.png'" in ended.err
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["images"] == 1
    assert list(summary["failed"]) == ["a.png"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.imags=x", "dataset.images"),
        ("model.variant=vit_b", "amg weights fetch vit_b"),
        ("dataset.annotations=/nowhere", "none"),
    ],
)
def test_wrong_settings_end_with_2(amg: Amg, config: Path, override: str, message: str) -> None:
    ended = amg("evaluate", config, "--set", override)

    assert ended.code == 2
    assert message in ended.err


def test_unreadable_config_ends_with_2(amg: Amg, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("kind: clicks # é".encode("latin-1"))

    for name, message in (
        ("none.yaml", "where nothing is"),
        ("", "readable"),
        ("latin.yaml", "utf-8"),
    ):
        ended = amg("evaluate", tmp_path / name)

        assert ended.code == 2
        assert message in ended.err


def test_agreement_of_a_run_with_itself(
    amg: Amg, fake_model: None, photos: Path, tmp_path: Path
) -> None:
    assert amg("run", photos, tmp_path / "run", "--local").code == 0
    path = tmp_path / "agreement.yaml"
    run = tmp_path / "run"
    path.write_text(f"kind: agreement\nagreement: {{first: '{run}', second: '{run}'}}\nworst: 2\n")

    ended = amg("evaluate", path, "--json", "--set", f"output={tmp_path / 'out'}")

    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["panoptic_quality"] == 1.0
    assert len(list((tmp_path / "out/worst").iterdir())) == 2
