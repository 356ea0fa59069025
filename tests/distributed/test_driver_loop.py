"""What the driver does when, with actors of a stand-in for Ray on a clock of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.distributed import cluster
from amg_pipeline.distributed import driver as driver_module
from amg_pipeline.distributed import pool as pool_module
from amg_pipeline.distributed import worker as worker_module
from amg_pipeline.distributed.driver import run_distributed
from amg_pipeline.distributed.worker import AttemptFailed, RowDone, ShardWorker
from amg_pipeline.errors import AmgPipelineError
from amg_pipeline.outcome import RunOutcome
from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageRef, ImageResult, Shard
from amg_pipeline.storage.run_directory import RunDirectory
from tests.distributed.fake_ray import NEVER, FakeActor, FakeClock, FakeRay, Tells
from tests.photo_runs import make_threshold_generator, plan_photos, stored_masks, write_photos

LIMIT = 10.0


class FakeMetrics:
    def add_failed_attempt(self, reason: str) -> None:
        pass

    def add_shard(self, state: str) -> None:
        pass

    def set_queue_depth(self, shards: int) -> None:
        pass


class SteadyRay(FakeRay):
    """Workers that need a second for each row and for each commit; each shard is really run.

    Attributes:
        hangs: Images that never end.
        calls: When which actor was given which shard.
        ended: When an actor was ended.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.hangs: set[str] = set()
        self.calls: list[tuple[float, FakeActor, int]] = []
        self.ended: list[float] = []

    def run_shard(
        self, actor: FakeActor, shard: Shard, known: Mapping[int, ImageResult], is_last: bool
    ) -> Tells:
        self.calls.append((self.clock.now, actor, shard.shard_id))
        ids = [ref.image_id for row, ref in enumerate(shard.images) if row not in known]
        hung = next((ids.index(name) for name in ids if name in self.hangs), None)
        if hung is not None:
            return [(0.0, ()), *[(1.0, (RowDone("ok", 1),))] * hung]
        worker = ShardWorker(actor.setup)
        worker.load_model()
        events = [event for news in worker.run_shard(shard, known, is_last) for event in news]
        return [(0.0, ()), *((1.0, (event,)) for event in events)]

    def try_image(self, actor: FakeActor, shard_id: int, row: int, ref: ImageRef) -> Tells:
        return [(NEVER if ref.image_id in self.hangs else 1.0, RowDone("ok", 1))]

    def kill(self, actor: FakeActor, *, no_restart: bool) -> None:
        super().kill(actor, no_restart=no_restart)
        self.ended.append(self.clock.now)


Use = Callable[[type[FakeRay]], Any]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Have the driver use a stand-in for Ray, and its clock."""

    def replace(kind: type[FakeRay]) -> FakeRay:
        fake = kind(FakeClock())
        for module in (driver_module, pool_module, cluster):
            monkeypatch.setattr(module, "ray", fake)
        monkeypatch.setattr(driver_module, "time", fake.clock)
        monkeypatch.setattr(driver_module, "DriverMetrics", FakeMetrics)
        monkeypatch.setattr(worker_module, "configure_logging", lambda: None)
        return fake

    return replace


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("loop") / "in", 20)


@pytest.fixture
def plan(photos: Path, tmp_path: Path) -> Plan:
    """Ten shards of two photos for one worker."""
    return plan_of(photos, tmp_path / "out")


def plan_of(photos: Path, out: Path, *, workers: int = 1, shard_size: int = 2) -> Plan:
    return plan_photos(
        photos,
        out,
        f"workers.workers={workers}",
        f"workers.image_timeout_seconds={LIMIT}",
        shard_size=shard_size,
    )


def run(plan: Plan, **options: Any) -> RunOutcome:
    return run_distributed(plan, make_generator=make_threshold_generator, **options)


def reasons(plan: Plan) -> dict[int, list[str]]:
    attempts = plan.run_directory.read_all_attempts(skip=())
    return {shard: [record["reason"] for record in records] for shard, records in attempts.items()}


def test_a_plan_is_run_and_its_end_is_told(use: Use, plan: Plan) -> None:
    use(SteadyRay)
    seen: list[int] = []
    outcome = run(plan, on_image=seen.append)
    assert outcome.is_settled
    assert len(seen) == outcome.counts.images["ok"] == 20
    assert reasons(plan) == {}


# Silence


def test_an_image_that_hangs_first_is_noticed_while_the_other_shards_go_on(
    use: Use, plan: Plan
) -> None:
    """Their rows are no sign of life of its own."""
    fake = use(SteadyRay)
    fake.hangs = {"000.png"}
    started = fake.clock.now

    outcome = run(plan)

    assert outcome.counts.images == {"ok": 19, "timeout": 1}
    assert reasons(plan) == {0: ["timeout"] * 3}
    assert LIMIT < fake.ended[0] - started < LIMIT + 3.0
    # Not after all else was done, which takes 27 s.
    assert sum(at < fake.ended[0] for at, _, _ in fake.calls) < 7


def test_a_second_shard_that_waits_for_the_model_is_not_hung(use: Use, plan: Plan) -> None:
    class Slow(SteadyRay):
        def run_shard(self, actor: FakeActor, shard: Shard, *arguments: Any) -> Tells:
            # The second shard waits until the first one is through, which takes 19 s.
            first, *others = super().run_shard(actor, shard, *arguments)
            wait = 19.0 if len(self.calls) == 2 else 0.0
            (delay, row), *rest = others
            slow = [(9.0, row) for _, row in rest] if len(self.calls) == 1 else rest
            return [first, (delay + wait, row), *slow]

    use(Slow)
    assert run(plan).is_settled
    assert reasons(plan) == {}


def test_what_the_driver_itself_takes_is_no_silence_of_its_workers(use: Use, plan: Plan) -> None:
    fake = use(SteadyRay)
    outcome = run(plan, on_image=lambda masks: fake.clock.sleep(1.5 * LIMIT))
    assert outcome.is_settled
    assert reasons(plan) == {}


def test_a_commit_that_takes_long_is_no_hung_image(use: Use, plan: Plan) -> None:
    class SlowCommit(SteadyRay):
        def run_shard(self, *arguments: Any) -> Tells:
            *rows, (_, report) = super().run_shard(*arguments)
            return [*rows, (50 * LIMIT, report)]

    use(SlowCommit)
    assert run(plan).is_settled
    assert reasons(plan) == {}


def test_a_commit_that_never_ends_is_noticed_too(use: Use, plan: Plan) -> None:
    class StuckCommit(SteadyRay):
        def run_shard(self, *arguments: Any) -> Tells:
            tells = list(super().run_shard(*arguments))
            return tells[:-1] if len(self.calls) == 1 else tells

    use(StuckCommit)
    assert run(plan).is_settled
    assert reasons(plan) == {0: ["timeout"]}


def test_nobody_waits_for_the_record_of_an_attempt(
    use: Use, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may be slow or down just then."""
    fake = use(SteadyRay)
    fake.hangs = {"019.png"}
    is_over = threading.Event()
    write = RunDirectory.write_attempt

    def write_slowly(*arguments: Any) -> int:
        assert is_over.wait(20)
        return write(*arguments)

    def on_image(masks: int) -> None:
        seen.append(masks)
        if len(seen) == 20:
            is_over.set()

    seen: list[int] = []
    monkeypatch.setattr(RunDirectory, "write_attempt", write_slowly)
    run(plan, on_image=on_image)
    assert reasons(plan) == {9: ["timeout"] * 3}


# Workers


def test_a_worker_has_its_second_shard_once_it_has_the_first(use: Use, plan: Plan) -> None:
    """Else the second one might be there first, and have the model first."""

    class Late(SteadyRay):
        def run_shard(self, *arguments: Any) -> Tells:
            (_, here), *rest = super().run_shard(*arguments)
            return [(5.0, here), *rest]

    fake = use(Late)
    run(plan)
    (first, *_), (second, *_), *_ = fake.calls
    assert second - first == 5.0


def test_workers_without_a_place_keep_no_shard_from_those_that_have_one(
    use: Use, photos: Path, tmp_path: Path
) -> None:
    """Else the next shard's images would not be loaded ahead."""

    class OnePlace(SteadyRay):
        def start(self, actor: FakeActor) -> Tells:
            return super().start(actor) if actor is self.actors[0] else []

    fake = use(OnePlace)
    plan = plan_of(photos, tmp_path / "out", workers=4, shard_size=7)
    run(plan)
    (first, *_), (second, *_), _ = fake.calls
    assert second == first


def test_workers_that_hang_while_they_start_end_the_run(use: Use, plan: Plan) -> None:
    class Stuck(SteadyRay):
        def start(self, actor: FakeActor) -> Tells:
            return [(1.0, actor.node)]

    fake = use(Stuck)
    with pytest.raises(AmgPipelineError, match=r"Workers must come up.*not ready"):
        run(plan)
    assert len(fake.ended) == 3


def test_a_machine_without_a_place_is_waited_for(use: Use, plan: Plan) -> None:
    class Late(SteadyRay):
        def start(self, actor: FakeActor) -> Tells:
            return [(86_400.0, actor.node), (1.0, actor.node)]

    use(Late)
    assert run(plan).is_settled


def test_accelerators_that_are_broken_everywhere_end_the_run(use: Use, plan: Plan) -> None:
    class Broken(SteadyRay):
        def run_shard(self, *arguments: Any) -> Tells:
            return [(0.0, ()), (1.0, (AttemptFailed("device", "RuntimeError", "CUDA_ERROR"),))]

    fake = use(Broken)
    with pytest.raises(AmgPipelineError, match="accelerators of some machine must work"):
        run(plan)
    assert len(fake.actors) <= 6


def test_faults_that_days_lie_between_exclude_no_machine(use: Use, plan: Plan) -> None:
    class Moody(SteadyRay):
        """Every other call ends with a broken accelerator."""

        def run_shard(self, actor: FakeActor, shard: Shard, *arguments: Any) -> Tells:
            tells = super().run_shard(actor, shard, *arguments)
            if len(self.calls) % 2:
                return tells
            return [(0.0, ()), (9.0, (AttemptFailed("device", "RuntimeError", "CUDA_ERROR"),))]

    fake = use(Moody)
    fake.machines.pop()
    assert run(plan).is_settled
    assert sum(map(len, reasons(plan).values())) > 3
    assert stored_masks(plan.run_directory.uri)
