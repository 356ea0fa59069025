"""plan and run, with masks by a threshold instead of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.cli import runs
from amg_pipeline.shard_runner import MaskGenerator
from tests.cli.conftest import Amg
from tests.photo_runs import everything_in, failing, stored_masks, threshold_masks

pytestmark = pytest.mark.usefixtures("fake_model")

UseGenerator = Callable[[MaskGenerator], None]


# Plan


def test_plan_says_what_there_is_to_do(amg: Amg, photos: Path, tmp_path: Path) -> None:
    ended = amg("plan", photos, tmp_path / "out", "--shard-size", 3)

    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("7 images, 0.0 MiB, 3 shards: 0 done, 3 to do (fingerprint ")
    assert (tmp_path / "out" / "_amg" / "plan.json").exists()


def test_plan_of_one_image_is_in_the_singular(amg: Amg, photos: Path, tmp_path: Path) -> None:
    ended = amg("plan", photos, tmp_path / "out", "--limit", 1, "--dry-run")

    assert ended.out.startswith("1 image, 0.0 MiB, 1 shard: 0 done, 1 to do")


def test_dry_run_writes_nothing(amg: Amg, photos: Path, tmp_path: Path) -> None:
    ended = amg("plan", photos, tmp_path / "out", "--dry-run")

    assert ended.code == 0
    assert "7 images" in ended.out
    assert not (tmp_path / "out").exists()


def test_dry_run_of_force_touches_nothing_and_counts_nothing_as_done(
    amg: Amg, photos: Path, tmp_path: Path
) -> None:
    amg("run", photos, tmp_path / "out", "--local")
    before = everything_in(tmp_path / "out")

    resumed = amg("plan", photos, tmp_path / "out", "--dry-run")
    forced = amg("plan", photos, tmp_path / "out", "--dry-run", "--force")
    changed = amg(
        *("plan", photos, tmp_path / "out", "--dry-run", "--force"),
        *("--set", "amg.pred_iou_thresh=0.9"),
    )

    assert "1 shard: 1 done, 0 to do" in resumed.out
    assert "1 shard: 1 done, 0 to do" in forced.out
    assert "1 shard: 0 done, 1 to do" in changed.out
    assert everything_in(tmp_path / "out") == before


def test_run_takes_up_the_plan_of_plan(amg: Amg, photos: Path, tmp_path: Path) -> None:
    planned = amg("plan", photos, tmp_path / "out")
    (photos / "new.png").write_bytes(b"")

    ended = amg("run", photos, tmp_path / "out", "--local")

    assert ended.code == 0
    assert ended.out.splitlines()[0] == planned.out.strip()
    assert "7 images" in ended.last_line


# Run


def test_run_ends_with_a_line_that_sums_it_up(amg: Amg, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    (photos / "text.jpg").write_text("no photo")

    ended = amg("run", photos, tmp_path / "out", "--local", "--shard-size", 2)

    masks = json.loads(amg("status", tmp_path / "out", "--json").out)["masks"]
    # What is wrong with an image itself does not fail the run.
    assert ended.code == 0
    assert ended.err == ""
    assert ended.last_line == (
        f"9 images, {masks} masks, 2 decode_error; output: {tmp_path / 'out'}"
    )


def test_run_without_failures_says_so(amg: Amg, photos: Path, tmp_path: Path) -> None:
    ended = amg("run", photos, tmp_path / "out", "--local")

    assert ", no failures; output: " in ended.last_line


def test_same_command_again_does_nothing_and_says_the_same(
    amg: Amg, photos: Path, tmp_path: Path
) -> None:
    first = amg("run", photos, tmp_path / "out", "--local")
    before = stored_masks(tmp_path / "out")

    again = amg("run", photos, tmp_path / "out", "--local")

    assert again.code == 0
    assert "1 shard: 1 done, 0 to do" in again.out
    assert again.last_line == first.last_line
    assert stored_masks(tmp_path / "out") == before


def test_image_that_is_gone_does_not_fail_the_run(amg: Amg, photos: Path, tmp_path: Path) -> None:
    amg("plan", photos, tmp_path / "out")
    (photos / "003.png").unlink()

    ended = amg("run", photos, tmp_path / "out", "--local")

    assert ended.code == 0
    assert "1 fetch_error" in ended.last_line


def test_image_that_could_succeed_another_time_ends_with_3(
    amg: Amg, use_generator: UseGenerator, photos: Path, tmp_path: Path
) -> None:
    use_generator(failing(0, MemoryError()))

    ended = amg("run", photos, tmp_path / "out", "--local")

    assert ended.code == 3
    assert ended.last_line == (
        f"amg: 7 images, 0 masks, 7 out_of_memory; output: {tmp_path / 'out'}"
    )


def test_shard_that_is_given_up_ends_with_3(
    amg: Amg, use_generator: UseGenerator, photos: Path, tmp_path: Path
) -> None:
    use_generator(failing(4, ValueError("a bug")))

    ended = amg("run", photos, tmp_path / "out", "--local", "--shard-size", 2)

    assert ended.code == 3
    assert ended.last_line.startswith("amg: 4 images, ")
    assert "2 shards given up (number 2, 3; `amg status OUTPUT` says why)" in ended.last_line
    assert f"; output: {tmp_path / 'out'}" in ended.last_line
    use_generator(threshold_masks)
    assert amg("run", photos, tmp_path / "out", "--local", "--shard-size", 2).code == 0


@pytest.mark.parametrize("number", [1, 3])
def test_progress_starts_with_the_images_that_are_done(
    amg: Amg, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Of 7 images in shards of 2, the last shard has one."""
    command = ("run", photos, tmp_path / "out", "--local", "--shard-size", 2)
    amg(*command)
    for path in sorted((tmp_path / "out" / "masks").iterdir()):
        if f"part-{number:06d}" not in path.name:
            path.unlink()
    made: list[tuple[int, int]] = []
    progress = runs.RunProgress

    def record(total: int, *, done: int) -> Any:
        made.append((total, done))
        return progress(total, done=done)

    monkeypatch.setattr(runs, "RunProgress", record)

    amg(*command)

    assert made == [(7, {1: 2, 3: 1}[number])]


# What is refused: exit code 2, one line, and nothing touched


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--set", "amg.pred_iou_tresh=0.9"],
            "Unknown setting amg.pred_iou_tresh. Did you mean amg.pred_iou_thresh?",
            id="unknown-key",
        ),
        pytest.param(
            ["--set", "amg.pred_iou_thresh=1.5"],
            "amg.pred_iou_thresh: Input should be less than or equal to 1. Received: 1.5",
            id="threshold-out-of-range",
        ),
        pytest.param(
            ["--set", "pred_iou_thresh"],
            "An override must look like section.key=value",
            id="malformed-override",
        ),
        pytest.param(
            ["--model", "vit_x"],
            "model.variant: Input should be 'tiny', 'vit_b', 'vit_l' or 'vit_h'. Received: 'vit_x'",
            id="unknown-variant",
        ),
        pytest.param(
            ["--model", "vit_b"], "`amg weights fetch vit_b`", id="published-without-weights"
        ),
        pytest.param(
            ["--config", "nowhere.yaml"],
            "--config must name a YAML file. Received: nowhere.yaml",
            id="missing-config",
        ),
        pytest.param(["--include", "*.gif"], "must leave at least one image", id="nothing-left"),
        pytest.param(["--shard-size", "0"], "output.shard_size: Input should be", id="shard-size"),
    ],
)
@pytest.mark.parametrize("command", [["plan"], ["run", "--local"]], ids=["plan", "run"])
def test_wrong_settings_are_refused(
    amg: Amg, photos: Path, tmp_path: Path, command: list[str], arguments: list[str], message: str
) -> None:
    ended = amg(*command, photos, tmp_path / "out", *arguments)

    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("amg: ")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda path: None, "INPUT must be a folder, glob, prefix", id="missing"),
        pytest.param(lambda path: path.mkdir(), "INPUT must hold images", id="empty"),
        pytest.param(lambda path: path.write_bytes(b""), "A file as INPUT must be", id="file"),
    ],
)
def test_input_without_images_is_refused(
    amg: Amg, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path / "photos")

    ended = amg("run", tmp_path / "photos", tmp_path / "out", "--local")

    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_output_of_somebody_else_is_refused(amg: Amg, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")

    for options in ([], ["--force"]):
        ended = amg("run", photos, tmp_path / "out", "--local", *options)

        assert ended.code == 2
        assert "OUTPUT must be empty or the output of a run" in ended.err
        assert "'thesis.tex'" in ended.err
        assert ended.err.count("\n") == 1
    assert everything_in(tmp_path / "out") == {"thesis.tex": b"years of work"}


def test_other_settings_are_refused_with_their_names(
    amg: Amg, photos: Path, tmp_path: Path
) -> None:
    amg("run", photos, tmp_path / "out", "--local")
    before = everything_in(tmp_path / "out")

    ended = amg(
        *("run", photos, tmp_path / "out", "--local"),
        *("--set", "amg.box_nms_thresh=0.9", "--shard-size", 3),
    )

    assert ended.code == 2
    assert "amg.box_nms_thresh was 0.7, asked for 0.9" in ended.err
    assert "output.shard_size was 128, asked for 3" in ended.err
    assert "--force" in ended.err
    assert ended.err.count("\n") == 1
    assert everything_in(tmp_path / "out") == before


def test_force_starts_afresh_and_keeps_the_old_run(amg: Amg, photos: Path, tmp_path: Path) -> None:
    amg("run", photos, tmp_path / "out", "--local")
    before = everything_in(tmp_path / "out")

    ended = amg(
        *("run", photos, tmp_path / "out", "--local", "--force"),
        *("--set", "amg.pred_iou_thresh=0.9", "--shard-size", 3),
    )

    assert ended.code == 0
    assert len(stored_masks(tmp_path / "out")) == 3
    [old] = (tmp_path / "out" / "_old").iterdir()
    assert everything_in(old) == before


def test_run_goes_through_ray_and_gives_the_local_runs_bytes(
    amg: Amg, use_generator: UseGenerator, ray_is_real: list[object], photos: Path, tmp_path: Path
) -> None:
    use_generator(threshold_masks)
    settings = ("--shard-size", 2, "--set", "model.intra_op_threads=2")
    local = amg("run", photos, tmp_path / "local", "--local", *settings)
    ended = amg("run", photos, tmp_path / "ray", *settings, "--workers", 2, "--address", "here")

    assert ended.code == local.code == 0
    assert ray_is_real == ["here"]
    assert stored_masks(tmp_path / "ray") == stored_masks(tmp_path / "local")
    last = ended.out.splitlines()[-1]
    assert last.replace("/ray", "/local") == local.out.splitlines()[-1]
