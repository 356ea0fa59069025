"""status and verify: what is told of a run from its output alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from amg_pipeline.errors import StorageError
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.status_rows import read_failed_rows
from tests.cli.conftest import Amg

pytestmark = pytest.mark.usefixtures("fake_model")

UseGenerator = Callable[[MaskGenerator], None]

pytestmark = pytest.mark.usefixtures("fake_model")


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
        "shards": {"total": 4, "done": 2, "to_do": 2, "given_up": {}},
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


def test_status_says_why_shards_were_given_up(amg: Amg, half_done: Path) -> None:
    directory = RunDirectory.open(str(half_done))
    error = {"reason": "error", "error_type": "ShardError", "error_message": "no disk"}
    for record in (error, {"reason": "given_up"}):
        directory.write_attempt(3, record)
    # Taken up since.
    for record in (error, {"reason": "given_up"}, error):
        directory.write_attempt(2, record)

    said = "error: ShardError: no disk"
    assert json.loads(amg("status", half_done, "--json").out)["shards"]["given_up"] == {"3": said}
    lines = amg("status", half_done).out.splitlines()
    assert f"given up: shard 3: {said}" in lines
    assert "failed  3 error (attempts at shards that are not done)" in lines


def test_status_names_the_images_that_failed_and_why(amg: Amg, half_done: Path) -> None:
    *_, line = amg("status", half_done, "--failed").out.splitlines()
    listed = json.loads(amg("status", half_done, "--failed", "--json").out)["failed_images"]

    assert [image["status"] for image in listed] == ["decode_error"]
    (image,) = listed
    assert line.startswith(f"decode_error: {image['image_id']}: {image['error_type']}: ")
    assert image["error_message"].split()[-1] in line
    assert "failed_images" not in json.loads(amg("status", half_done, "--json").out)


def test_failed_images_of_a_truncated_shard_point_to_verify(amg: Amg, half_done: Path) -> None:
    path = min((half_done / "masks").iterdir())
    path.write_bytes(path.read_bytes()[:-50])

    with pytest.raises(StorageError, match="Find out more with `amg verify`"):
        list(read_failed_rows(load_masks(str(half_done))))


def test_status_of_a_plan_alone(amg: Amg, photos: Path, tmp_path: Path) -> None:
    amg("plan", photos, tmp_path / "out")

    assert amg("status", tmp_path / "out").out.splitlines() == [
        "shards  0 of 1 done",
        "images  0 of 7 done (none)",
        "masks   0",
    ]
    assert amg("status", tmp_path / "out", "--failed").code == 0


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
    assert ended.last_line.startswith(f"amg: 2 problems in 2 shards of {half_done}. Remove")


def test_verify_names_a_truncated_shard(amg: Amg, half_done: Path) -> None:
    path = min((half_done / "masks").iterdir())
    path.write_bytes(path.read_bytes()[:-50])

    ended = amg("verify", half_done)

    assert ended.code == 1
    assert ended.out.startswith(f"masks/{path.name}: A mask table must be a complete Parquet file")
    assert ended.last_line.startswith(f"amg: 1 problem in 2 shards of {half_done}. Remove")
    path.unlink()  # as it says
    assert amg("verify", half_done).code == 0
    assert json.loads(amg("status", half_done, "--json").out)["shards"]["done"] == 1


def test_status_of_a_truncated_shard_points_to_verify(amg: Amg, half_done: Path) -> None:
    path = min((half_done / "masks").iterdir())
    path.write_bytes(path.read_bytes()[:-50])

    ended = amg("status", half_done)

    assert ended.code == 1
    assert "Find the damaged one with `amg verify`" in ended.err
