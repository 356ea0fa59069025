"""What several reviewers' decisions come to, and how exports keep to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from amg_pipeline.decisions.events import Change, Event, Standing, mask_names, merge_name
from amg_pipeline.decisions.reviewer_log import ReviewerLog, read_reviews
from amg_pipeline.decisions.verdicts import Verdicts
from amg_pipeline.errors import ConfigError
from amg_pipeline.export.formats import DISPUTED, FORMATS, UNDECIDED, UNSEEN, export_run
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.selection import Selection, read_wanted, read_wanted_scores, select
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.mask_table import load_masks
from tests.export.stored_runs import stored_masks, write_run

ACCEPTED, REJECTED = Standing(decision="accepted"), Standing(decision="rejected")


@pytest.fixture(scope="module")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def output(run_output: Path) -> Iterator[Path]:
    yield run_output
    for log in (run_output / "_amg" / "reviews").glob("*"):
        log.unlink()


def read_images(output: Path) -> dict[str, ImageMasks]:
    return {image.image_id: image for image in select(load_masks(str(output)), Selection())}


def say(output: Path, reviewer: str, image_id: str, **change: object) -> None:
    """Record a change in which masks are named by their index, and merges by those of parts."""
    names = mask_names(read_images(output)[image_id])
    masks = {names[index]: standing for index, standing in change.get("masks", {}).items()}
    merges = {
        merge_name(names[index] for index in parts): standing
        for parts, standing in change.get("merges", {}).items()
    }
    with ReviewerLog.open(str(output), reviewer) as log:
        log.record(
            Event(
                image_id=image_id,
                row=0,
                change=Change(masks=masks, merges=merges, is_done=change.get("is_done")),
            )
        )


def annotate(output: Path, image_id: str = "a.png") -> ImageMasks:
    return Verdicts.load(str(output)).annotate(read_images(output)[image_id])


def export(output: Path, dest: Path, name: str = "coco", **filters: object) -> ExportTally:
    return export_run(
        name,
        str(output),
        str(dest),
        selection=Selection(**filters),
        settings=ExportSettings(),
    )


@pytest.mark.parametrize(
    ("anna", "bert", "verdict", "is_disputed"),
    [
        pytest.param("accepted", None, "accepted", False, id="one"),
        pytest.param("accepted", "accepted", "accepted", False, id="both"),
        pytest.param("accepted", "rejected", "rejected", True, id="whoever-rejects-is-right"),
        pytest.param(None, "rejected", "rejected", False, id="rejected"),
        pytest.param(None, None, None, False, id="nobody"),
    ],
)
def test_verdict_of_two_reviewers(
    output: Path, anna: str | None, bert: str | None, verdict: str | None, is_disputed: bool
) -> None:
    for name, decision in (("anna", anna), ("bert", bert)):
        say(output, name, "a.png", masks={0: Standing(decision=decision)}, is_done=True)

    found = annotate(output).reviews

    assert found is not None
    assert (found[0].verdict, found[0].is_disputed) == (verdict, is_disputed)
    assert found[1].verdict is None


def test_image_that_nobody_looked_at_stays_as_it_is(output: Path) -> None:
    say(output, "anna", "a.png", masks={0: ACCEPTED})

    image = read_images(output)["b/c d.png"]
    assert Verdicts.load(str(output)).annotate(image) is image


def test_union_has_the_pixels_of_its_parts_and_their_least_scores(output: Path) -> None:
    say(output, "anna", "a.png", merges={(2, 4): Standing(decision="accepted", tags=("x",))})
    masks = [found for found in stored_masks(output) if found.image_id == "a.png"]
    union = masks[2].mask | masks[4].mask

    image = annotate(output)

    assert len(image) == len(masks) + 1
    assert image.reviews is not None
    assert [image.reviews[index].verdict for index in (2, 4)] == ["merged", "merged"]
    last = image.reviews[-1]
    assert (last.verdict, last.merged_from, last.tags) == ("accepted", (2, 4), ("x",))
    assert image.area[-1] == union.sum()
    rows, columns = np.nonzero(union)
    expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert image.bbox_xywh[-1].tolist() == expected
    assert image.predicted_iou[-1] == min(masks[2].predicted_iou, masks[4].predicted_iou)
    assert image.stability_score.dtype == np.float32


def test_export_keeps_exactly_the_accepted(output: Path, tmp_path: Path) -> None:
    say(output, "anna", "a.png", masks={0: REJECTED, 1: ACCEPTED}, merges={(5, 6): ACCEPTED})
    say(output, "bert", "a.png", masks={1: ACCEPTED, 3: ACCEPTED})
    say(output, "bert", "empty.png", is_done=True)
    image = read_images(output)["a.png"]

    tally = export(output, tmp_path / "x.json", reviewed="accepted")

    document = json.loads((tmp_path / "x.json").read_bytes())
    assert [entry["file_name"] for entry in document["images"]] == ["a.png", "empty.png"]
    found = document["annotations"]
    assert [row["segmentation"]["counts"] for row in found[:2]] == [
        image.counts[1],
        image.counts[3],
    ]
    assert [row.get("merged_from") for row in found] == [None, None, [5, 6]]
    assert {row["decision"] for row in found} == {"accepted"}
    assert tally.masks == 3
    assert tally.notes[UNSEEN] == 3
    assert tally.notes[UNDECIDED] == len(image) - 5


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        pytest.param({"reviewed": "rejected"}, [0], id="rejected"),
        pytest.param({"reviewed": "accepted", "reviewers": ("bert",)}, [0, 3], id="of-one"),
        pytest.param({"reviewed": "accepted", "top_k": 0}, [], id="with-other-filters"),
        pytest.param({"reviewed": "unrejected"}, [1, 2, 3, 4, 7, 8, 9, 10], id="unrejected"),
    ],
)
def test_selection_by_decisions(
    output: Path, filters: dict[str, object], expected: list[int]
) -> None:
    say(output, "anna", "a.png", masks={0: REJECTED, 1: ACCEPTED}, merges={(5, 6): ACCEPTED})
    say(output, "bert", "a.png", masks={0: ACCEPTED, 3: ACCEPTED})
    selection = Selection(images=("a.png",), **filters)
    verdicts = Verdicts.load(str(output), selection.reviewers)
    [image] = read_wanted(load_masks(str(output)), selection, verdicts)

    assert selection.choose(image).tolist() == expected


def test_unrejected_keeps_images_that_nobody_looked_at(output: Path, tmp_path: Path) -> None:
    say(output, "anna", "a.png", masks={0: REJECTED})
    say(output, "bert", "a.png", masks={0: ACCEPTED})

    tally = export(output, tmp_path / "x.json", reviewed="unrejected")

    assert tally.images == 5
    assert tally.left_out == 1
    assert tally.notes[DISPUTED] == 1


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_reviewed_masks(output: Path, tmp_path: Path, name: str) -> None:
    say(output, "anna", "a.png", masks={6: Standing(decision="accepted", tags=("cat",))})
    say(output, "anna", "a.png", merges={(4, 5): ACCEPTED})

    tally = export(output, tmp_path / "out", name, reviewed="accepted")

    assert (tally.images, tally.masks) == (1, 2)


def test_columns_of_decisions_are_there_when_asked_for(output: Path, tmp_path: Path) -> None:
    say(output, "anna", "a.png", masks={6: Standing(decision="accepted", tags=("cat",))})
    say(output, "anna", "a.png", merges={(4, 5): ACCEPTED})

    export(output, tmp_path / "out", "parquet-masks", reviewed="accepted")
    export(output, tmp_path / "plain", "parquet-masks")

    rows = pq.read_table(tmp_path / "out" / "masks-00000.parquet").to_pylist()
    assert [(row["decision"], row["tags"], row["merged_from"]) for row in rows] == [
        ("accepted", ["cat"], []),
        ("accepted", [], [4, 5]),
    ]
    assert "decision" not in pq.read_schema(tmp_path / "plain" / "masks-00000.parquet").names


def test_decisions_about_other_pixels_are_not_taken_up(output: Path) -> None:
    with ReviewerLog.open(str(output), "anna") as log:
        change = Change(masks={"0" * 16: ACCEPTED}, merges={"0" * 16 + "+" + "1" * 16: ACCEPTED})
        log.record(Event(image_id="a.png", row=0, change=change))

    image = annotate(output)

    assert image.reviews is not None
    assert {review.verdict for review in image.reviews} == {None}
    assert len(image) == len(read_images(output)["a.png"])


@pytest.mark.parametrize(
    "reviewers", [pytest.param((), id="none-at-all"), pytest.param(("carl",), id="unknown")]
)
def test_reviews_that_are_not_there_are_an_error(output: Path, reviewers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="amg review"):
        read_reviews(str(output), reviewers)


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb"])
def test_unfit_reviewer_is_refused(output: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="reviewer"):
        ReviewerLog.open(str(output), name)


@pytest.mark.parametrize("filters", [{"reviewed": "maybe"}, {"reviewers": ("anna",)}])
def test_unfit_filter_is_refused(filters: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="Received"):
        Selection(**filters)


def test_reviewed_without_verdicts_is_never_taken_for_all(output: Path) -> None:
    selection, dataset = Selection(reviewed="accepted"), load_masks(str(output))

    with pytest.raises(ConfigError, match="verdicts"):
        read_wanted(dataset, selection)
    with pytest.raises(ConfigError, match="scores only"):
        read_wanted_scores(dataset, selection)
