"""One pass over a run: sums, failures, and the images to show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.report.facts import RunFacts
from amg_pipeline.report.failures import MOST_NAMED
from amg_pipeline.report.picks import Gallery, Pick, Smallest
from amg_pipeline.selection import Selection
from amg_pipeline.storage.image_scores import RowPlace
from tests.report.images import make_scores

ALL = Selection()


def names(facts: RunFacts) -> dict[str, list[str]]:
    return {
        section.name: [pick.image_id for pick in section.picks]
        for section in facts.gallery.sections()
    }


def test_sums_count_what_is_wanted() -> None:
    facts = RunFacts(Gallery(5))
    selection = Selection(min_iou=0.85)

    counts = [
        facts.add(make_scores("a", ious=[0.9, 0.8, 0.95]), selection),
        facts.add(make_scores("b", ious=[]), selection),
        facts.add(make_scores("c", ious=[], status="decode_error"), selection),
    ]

    assert counts == [2, 0, 0]
    assert (facts.images, facts.images_ok, facts.masks, facts.left_out) == (3, 2, 2, 1)
    assert facts.most_masks == 2
    assert facts.predicted_iou.total == facts.stability.total == facts.area.total == 2
    assert facts.masks_per_image.quantile(1.0) == 2


def test_small_run_is_shown_whole_and_in_its_order() -> None:
    facts = RunFacts(Gallery(3))
    for name, ious in (("b", [0.5]), ("a", [0.9, 0.8]), ("c", [])):
        facts.add(make_scores(name, ious=ious), ALL)

    assert names(facts) == {
        "all": ["b", "a", "c"],
        "most": ["a", "b", "c"],
        "fewest": ["c", "b", "a"],
        "worst": ["b", "a"],
    }


def test_large_run_is_sampled() -> None:
    facts = RunFacts(Gallery(4))
    for row in range(50):
        facts.add(make_scores(f"{row}.jpg", row=row, ious=[row / 100] * (50 - row)), ALL)
    again = RunFacts(Gallery(4))
    for row in reversed(range(50)):
        again.add(make_scores(f"{row}.jpg", row=row, ious=[row / 100] * (50 - row)), ALL)

    shown = names(facts)
    assert "all" not in shown
    assert shown["most"] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert shown["fewest"] == ["49.jpg", "48.jpg", "47.jpg", "46.jpg"]
    assert shown["worst"] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    # A draw depends on names, not on the order in which images come.
    assert shown["random"] == names(again)["random"]
    assert shown["random"] != shown["most"]


def test_gallery_of_nothing_has_no_sections() -> None:
    facts = RunFacts(Gallery(0))
    facts.add(make_scores("a"), ALL)

    assert facts.gallery.sections() == ()
    assert RunFacts(Gallery(4)).gallery.sections() == ()


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 8))
def test_smallest_keeps_the_first_of_the_smallest(ranks: list[int], limit: int) -> None:
    smallest = Smallest(limit)
    for number, rank in enumerate(ranks):
        smallest.offer(rank, Pick(str(number), RowPlace(0, number), 0, None))

    expected = sorted(range(len(ranks)), key=lambda number: ranks[number])[:limit]
    assert [int(pick.image_id) for pick in smallest.picks()] == expected


def test_failures_are_grouped_and_bounded() -> None:
    facts = RunFacts(Gallery(4))
    for number in range(MOST_NAMED + 5):
        facts.add(
            make_scores(f"{number}", ious=[], status="decode_error", error=("Broken", "no image")),
            ALL,
        )
    facts.add(make_scores("x", ious=[], status="decode_error", error=("Cut", None)), ALL)
    facts.add(make_scores("y", ious=[], status="crash"), ALL)

    groups = facts.failures.groups()

    assert facts.failures.count == MOST_NAMED + 7
    assert [(g.status, g.error_type, g.count) for g in groups] == [
        ("decode_error", "Broken", MOST_NAMED + 5),
        ("crash", None, 1),
        ("decode_error", "Cut", 1),
    ]
    assert len(groups[0].named) == MOST_NAMED
    assert groups[0].named[0] == ("0", "no image")
    assert groups[2].named == [("x", "")]
