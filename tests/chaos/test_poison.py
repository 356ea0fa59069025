"""Images that kill, hang and eat: what they cost a large run, and a machine that falls silent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from amg_pipeline.distributed.driver import run_distributed
from amg_pipeline.planning import Plan
from amg_pipeline.storage.mask_table import load_masks
from tests.chaos.storm import ChaosCluster, chaos_cluster
from tests.distributed.stubs import SlowGenerator, load_poison
from tests.photo_runs import plan_photos, stored_masks, write_photo, write_photos

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

IMAGES = 500
CORRUPT = 20
TIMEOUT_SECONDS = 10
POISON = {"crash": "100-segfault.png", "timeout": "250-hang.png", "out_of_memory": "400-eat.png"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ChaosCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with chaos_cluster() as running:
            ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
            yield running
            ray.shutdown()


def plan_of(folder: Path, out: Path) -> Plan:
    return plan_photos(
        folder,
        out,
        "workers.workers=2",
        f"workers.image_timeout_seconds={TIMEOUT_SECONDS}",
        f"workers.memory_limit_bytes={2 * 2**30}",
        shard_size=50,
    )


@pytest.mark.usefixtures("cluster")
def test_poison_costs_three_time_outs_and_twice_the_undisturbed_time_at_most(
    tmp_path: Path,
) -> None:
    sound = write_photos(tmp_path / "sound", IMAGES)
    started = time.monotonic()
    run_distributed(plan_of(sound, tmp_path / "quiet"), make_generator=SlowGenerator(0.05))
    undisturbed = time.monotonic() - started

    # The same number of images, three of them poison and twenty without an image in them.
    folder = write_photos(tmp_path / "in", IMAGES - len(POISON))
    for name in POISON.values():
        write_photo(folder / name)
    for number in range(7, 7 + CORRUPT * 20, 20):
        (folder / f"{number:03d}.png").write_bytes(b"no image")
    started = time.monotonic()
    outcome = run_distributed(
        plan_of(folder, tmp_path / "out"), make_generator=SlowGenerator(0.05), load=load_poison
    )
    disturbed = time.monotonic() - started
    print(f"undisturbed {undisturbed:.1f} s, with poison {disturbed:.1f} s")

    rows = load_masks(str(tmp_path / "out")).to_table(columns=["image_id", "status"]).to_pylist()
    found = {row["image_id"]: row["status"] for row in rows}
    assert len(rows) == len(found) == IMAGES
    assert Counter(found.values()) == {
        "ok": IMAGES - CORRUPT - len(POISON),
        "decode_error": CORRUPT,
        **dict.fromkeys(POISON, 1),
    }
    assert {status: found[name] for status, name in POISON.items()} == {s: s for s in POISON}
    assert outcome.is_complete
    assert not outcome.is_settled  # exit code 3
    assert disturbed <= 3 * TIMEOUT_SECONDS + 2 * undisturbed


def test_a_machine_that_falls_silent_and_comes_back_does_no_harm(
    cluster: ChaosCluster, tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "in", 120)
    run_distributed(plan_of(folder, tmp_path / "quiet"), make_generator=SlowGenerator(0.05))
    plan = plan_of(folder, tmp_path / "out")
    silent = threading.Thread(target=silence_a_machine_with_a_worker, args=(cluster,))
    silent.start()
    outcome = run_distributed(plan, make_generator=SlowGenerator(0.1))
    silent.join()

    assert outcome.is_settled
    attempts = plan.run_directory.read_all_attempts(skip=())
    assert {a["reason"] for records in attempts.values() for a in records} == {"node_lost"}
    assert stored_masks(tmp_path / "out") == stored_masks(tmp_path / "quiet")
    rows = load_masks(str(tmp_path / "out")).to_table(columns=["image_id"]).column(0).to_pylist()
    assert len(rows) == len(set(rows)) == 120


def silence_a_machine_with_a_worker(cluster: ChaosCluster) -> None:
    """Stop a raylet and its workers beyond the health time-out, then let them go on."""
    while not cluster.worker_processes():
        time.sleep(0.05)
    time.sleep(1.0)
    worker = cluster.worker_processes()[0]
    processes = [worker.parent(), worker]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    time.sleep(15.0)
    for process in processes:
        if process.is_running():
            os.kill(process.pid, signal.SIGCONT)
