"""plan, run, status, verify, report and demo, with masks by a threshold instead of a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline.cli import runs
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from tests.cli.conftest import Amg
from tests.photo_runs import stored_masks, threshold_masks, write_photo

pytestmark = pytest.mark.usefixtures("fake_model")

UseGenerator = Callable[[MaskGenerator], None]


def contents(folder: Path) -> dict[str, bytes]:
    store = ObjectStore.open(str(folder))
    return {info.key: store.read(info.key) for info in store.list()}


def failing(at: int, error: BaseException) -> MaskGenerator:
    """Fail from the n-th image on, counted from 0."""
    calls = iter(range(10_000))

    def generate(pixels: NDArray[np.uint8]) -> Any:
        if next(calls) >= at:
            raise error
        return threshold_masks(pixels)

    return generate


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
    before = contents(tmp_path / "out")

    resumed = amg("plan", photos, tmp_path / "out", "--dry-run")
    forced = amg("plan", photos, tmp_path / "out", "--dry-run", "--force")
    changed = amg(
        *("plan", photos, tmp_path / "out", "--dry-run", "--force"),
        *("--set", "amg.pred_iou_thresh=0.9"),
    )

    assert "1 shard: 1 done, 0 to do" in resumed.out
    assert "1 shard: 1 done, 0 to do" in forced.out
    assert "1 shard: 0 done, 1 to do" in changed.out
    assert contents(tmp_path / "out") == before


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
    assert f"shards given up: 2, 3; output: {tmp_path / 'out'}" in ended.last_line
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
    assert contents(tmp_path / "out") == {"thesis.tex": b"years of work"}


def test_other_settings_are_refused_with_their_names(
    amg: Amg, photos: Path, tmp_path: Path
) -> None:
    amg("run", photos, tmp_path / "out", "--local")
    before = contents(tmp_path / "out")

    ended = amg(
        *("run", photos, tmp_path / "out", "--local"),
        *("--set", "amg.box_nms_thresh=0.9", "--shard-size", 3),
    )

    assert ended.code == 2
    assert "amg.box_nms_thresh was 0.7, asked for 0.9" in ended.err
    assert "output.shard_size was 128, asked for 3" in ended.err
    assert "--force" in ended.err
    assert ended.err.count("\n") == 1
    assert contents(tmp_path / "out") == before


def test_force_starts_afresh_and_keeps_the_old_run(amg: Amg, photos: Path, tmp_path: Path) -> None:
    amg("run", photos, tmp_path / "out", "--local")
    before = contents(tmp_path / "out")

    ended = amg(
        *("run", photos, tmp_path / "out", "--local", "--force"),
        *("--set", "amg.pred_iou_thresh=0.9", "--shard-size", 3),
    )

    assert ended.code == 0
    assert len(stored_masks(tmp_path / "out")) == 3
    [old] = (tmp_path / "out" / "_old").iterdir()
    assert contents(old) == before


def test_run_goes_through_ray_and_gives_the_local_runs_bytes(
    amg: Amg, use_generator: UseGenerator, ray_is_real: list[object], photos: Path, tmp_path: Path
) -> None:
    use_generator(threshold_masks)
    local = amg("run", photos, tmp_path / "local", "--local", "--shard-size", 2)
    ended = amg(
        "run", photos, tmp_path / "ray", "--shard-size", 2, "--workers", 2, "--address", "here"
    )

    assert ended.code == local.code == 0
    assert ray_is_real == ["here"]
    assert stored_masks(tmp_path / "ray") == stored_masks(tmp_path / "local")
    last = ended.out.splitlines()[-1]
    assert last.replace("/ray", "/local") == local.out.splitlines()[-1]


# Status and verify


@pytest.fixture
def half_done(amg: Amg, use_generator: UseGenerator, photos: Path, tmp_path: Path) -> Path:
    """A run of 4 shards that was interrupted in the third; one image is damaged."""
    (photos / "001.png").write_bytes(b"")
    use_generator(failing(3, KeyboardInterrupt()))
    ended = amg("run", photos, tmp_path / "out", "--local", "--shard-size", 2)
    assert ended.code == 130
    return tmp_path / "out"


def test_status_of_a_run_that_is_half_done(amg: Amg, half_done: Path) -> None:
    ended = amg("status", half_done)

    masks = json.loads(amg("status", half_done, "--json").out)["masks"]
    assert ended.code == 0
    *lines, rate = ended.out.splitlines()
    assert lines == [
        "shards  2 of 4 done",
        "images  4 of 7 done (1 decode_error, 3 ok)",
        f"masks   {masks}",
    ]
    assert re.fullmatch(r"rate    [0-9.]+ images/s, [0-9]+ s left", rate)


def test_status_as_json(amg: Amg, half_done: Path) -> None:
    ended = amg("status", half_done, "--json")

    status = json.loads(ended.out)
    plan = json.loads((half_done / "_amg" / "plan.json").read_bytes())
    assert ended.code == 0
    assert status.pop("masks") >= 9
    assert status.pop("seconds_left") == pytest.approx(3 / status.pop("images_per_second"))
    assert status == {
        "shards": {"total": 4, "done": 2, "to_do": 2},
        "images": {
            "total": 7,
            "done": 4,
            "to_do": 3,
            "by_status": {"decode_error": 1, "ok": 3},
            "unsettled": 0,
        },
        "failed_attempts": {},
        "fingerprint": plan["fingerprint"],
    }


def test_status_names_failed_attempts_at_what_is_not_done(amg: Amg, half_done: Path) -> None:
    directory = RunDirectory.open(str(half_done))
    directory.write_attempt(0, {"reason": "crash"})  # done since
    for reason in ("error", "timeout", "error"):
        directory.write_attempt(3, {"reason": reason})

    assert json.loads(amg("status", half_done, "--json").out)["failed_attempts"] == {
        "error": 2,
        "timeout": 1,
    }
    assert "failed  2 error, 1 timeout (attempts" in amg("status", half_done).out


def test_status_of_a_plan_alone(amg: Amg, photos: Path, tmp_path: Path) -> None:
    amg("plan", photos, tmp_path / "out")

    assert amg("status", tmp_path / "out").out.splitlines() == [
        "shards  0 of 1 done",
        "images  0 of 7 done (none)",
        "masks   0",
    ]


@pytest.mark.parametrize("command", ["status", "verify", "report"])
def test_folder_that_is_no_output_is_refused(amg: Amg, tmp_path: Path, command: str) -> None:
    ended = amg(command, tmp_path, *([tmp_path / "page"] if command == "report" else []))

    assert ended.code == 2
    assert ended.err.startswith("amg: OUTPUT must be the output of a run")
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_verify_of_sound_shards(amg: Amg, half_done: Path) -> None:
    ended = amg("verify", half_done)

    assert ended.code == 0
    assert ended.out == "2 shards of 4 committed and sound\n"


def test_verify_names_the_damaged_shard(amg: Amg, half_done: Path) -> None:
    first, second = sorted((half_done / "masks").iterdir())
    first.write_bytes(second.read_bytes())

    ended = amg("verify", half_done)

    assert ended.code == 1
    assert all(line.startswith(f"masks/{first.name}: ") for line in ended.out.splitlines())
    assert ended.last_line == f"amg: 2 problems in 2 shards of {half_done}"


def test_verify_names_a_truncated_shard(amg: Amg, half_done: Path) -> None:
    path = min((half_done / "masks").iterdir())
    path.write_bytes(path.read_bytes()[:-50])

    ended = amg("verify", half_done)

    assert ended.code == 1
    assert ended.out.startswith(f"masks/{path.name}: A mask table must be a complete Parquet file")
    assert ended.last_line == f"amg: 1 problem in 2 shards of {half_done}"


def test_status_of_a_truncated_shard_points_to_verify(amg: Amg, half_done: Path) -> None:
    path = min((half_done / "masks").iterdir())
    path.write_bytes(path.read_bytes()[:-50])

    ended = amg("status", half_done)

    assert ended.code == 1
    assert "Find the damaged one with `amg verify`" in ended.err


# Pages


def test_report_writes_a_page(amg: Amg, half_done: Path, tmp_path: Path) -> None:
    ended = amg("report", half_done, tmp_path / "page", "--limit", 2)

    page = tmp_path / "page" / "index.html"
    assert ended.code == 0
    assert ended.out == f"{page}\n"
    text = page.read_text(encoding="utf-8")
    assert f"Masks of {half_done}" in text
    assert "2 more images not shown here" in text
    assert len(list((tmp_path / "page" / "images").glob("*-masks.jpg"))) == 1


def test_report_to_a_place_that_cannot_be_written_is_one_line(
    amg: Amg, half_done: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    ended = amg("report", half_done, tmp_path / "file" / "page")

    assert ended.code == 1
    assert ended.err.startswith("amg: ")
    assert str(tmp_path / "file") in ended.err
    assert ended.err.count("\n") == 1


def test_demo_makes_masks_and_a_page(
    amg: Amg,
    ray_is_real: list[object],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "PHOTOS_FOLDER", photos)
    monkeypatch.chdir(tmp_path)

    ended = amg("demo")

    page = tmp_path / "amg-demo" / "report" / "index.html"
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].startswith("7 images, 0.0 MiB, 4 shards: 0 done, 4 to do")
    assert lines[1] == "Parquet: amg-demo/run/masks"
    assert lines[2] == f"page:    {page.as_uri()}"
    assert lines[3].startswith("7 images, ")
    assert "Masks of the sample photos" in page.read_text(encoding="utf-8")
    assert len(list((tmp_path / "amg-demo" / "run" / "masks").iterdir())) == 4
    assert amg("demo", "amg-demo").code == 0

    write_photo(photos / "more.png")
    monkeypatch.setattr(runs, "__version__", "99.0.0")
    assert "pass --force" in amg("demo", "amg-demo").err
    assert amg("demo", "amg-demo", "--force").out.startswith("8 images")
