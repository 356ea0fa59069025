"""The page of a stored run, from its output alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from amg_pipeline.attempts import why_given_up
from amg_pipeline.config import ImageSettings
from amg_pipeline.report.cards import Card, make_card
from amg_pipeline.report.facts import RunFacts
from amg_pipeline.report.html import RunPage, render_page
from amg_pipeline.report.page_folder import PAGE, PageFolder
from amg_pipeline.report.photos import PhotoReader
from amg_pipeline.report.picks import Gallery, Section
from amg_pipeline.report.timings import read_timings
from amg_pipeline.selection import Selection, read_wanted_scores
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.image_scores import RowPlace, read_images_at
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.uris import absolute_uri, is_local, join_uri, local_path, redact

OnImage = Callable[[int], None]

#: Images of a section of the gallery.
DEFAULT_LIMIT = 24
#: Cards in the making: photos wait for a disk or a store, and each is held whole for a moment.
_CARDS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Report:
    """A page that was written.

    Attributes:
        page: Its address: a path, or a URI without credentials.
        images: Images that it is about.
        masks: Masks that it is about.
        failed: Images that failed.
        left_out: Masks that the filters left out.
        shown: Images in the gallery.
        not_shown: Those of them whose photo could not be read.
        shards_done: Shards of the run that are committed.
        num_shards: Shards of the run.
    """

    page: str
    images: int
    masks: int
    failed: int
    left_out: int
    shown: int
    not_shown: int
    shards_done: int
    num_shards: int


def write_run_report(
    output: str,
    dest: str,
    *,
    title: str | None = None,
    limit: int = DEFAULT_LIMIT,
    selection: Selection | None = None,
    on_image: OnImage | None = None,
) -> Report:
    """Write the page of a run, which may still be going; memory does not grow with the run.

    The same output, photos and choices give the same files.

    Args:
        output: The run's output.
        dest: Folder or URI prefix of the page; an earlier page in it is replaced.
        title: Heading of the page.
        limit: The most images of a section of its gallery; the totals always count all.
        selection: Which images and masks it is about; all by default.
        on_image: Called after each image with the number of its masks.

    Returns:
        What was written.

    Raises:
        ConfigError: If `output` is no run, or `dest` holds something else than a page.
        StorageError: If something cannot be read or written.
    """
    selection = selection or Selection()
    directory = RunDirectory.open(output)
    plan = directory.require_plan()
    folder = PageFolder(dest)
    with folder:
        folder.begin()
        dataset = load_masks(output)
        facts = RunFacts(Gallery(limit))
        for image in read_wanted_scores(dataset, selection):
            count = facts.add(image, selection)
            if on_image is not None:
                on_image(count)
        sections = facts.gallery.sections()
        photos = PhotoReader(ImageSettings.model_validate(plan.config["images"]))
        cards = _make_cards(dataset, sections, selection, photos, folder)
        done = directory.committed(plan)
        page = RunPage(
            title=title or f"Masks of {redact(output)}",
            plan=plan,
            shards_done=len(done),
            given_up=_given_up(directory, done),
            selection=selection,
            facts=facts,
            timings=read_timings(directory, sorted(done)),
            sections=sections,
            cards=cards,
        )
        folder.finish(render_page(page))
    return Report(
        page=_page_address(dest),
        images=facts.images,
        masks=facts.masks,
        failed=facts.failures.count,
        left_out=facts.left_out,
        shown=len(cards),
        not_shown=sum(card.problem is not None for card in cards.values()),
        shards_done=len(done),
        num_shards=plan.num_shards,
    )


def _make_cards(
    dataset: Any,
    sections: Sequence[Section],
    selection: Selection,
    photos: PhotoReader,
    folder: PageFolder,
) -> dict[RowPlace, Card]:
    """Make the cards of all sections, each image's once, and write their files."""
    places = [pick.place for section in sections for pick in section.picks]
    cards: dict[RowPlace, Card] = {}
    for place, card, files in _in_threads(dataset, places, selection, photos):
        folder.put(files)
        cards[place] = card
    return cards


def _in_threads(
    dataset: Any, places: Sequence[RowPlace], selection: Selection, photos: PhotoReader
) -> Iterator[Any]:
    def make(place: RowPlace, image: ImageMasks) -> Any:
        return place, *make_card(image.take(selection.choose(image)), photos.read)

    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(_CARDS_AT_ONCE, thread_name_prefix="cards") as pool:
        try:
            for place, image in read_images_at(dataset, places):
                waiting.append(pool.submit(make, place, image))
                if len(waiting) > _CARDS_AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _given_up(directory: RunDirectory, done: frozenset[int]) -> dict[int, str]:
    """Tell why shards were given up whose attempts are used up."""
    return {
        number: str(why)
        for number, records in sorted(directory.read_all_attempts(skip=done).items())
        if (why := why_given_up(records)) is not None
    }


def _page_address(dest: str) -> str:
    uri = absolute_uri(dest)
    return join_uri(local_path(uri) if is_local(uri) else redact(uri), PAGE)
