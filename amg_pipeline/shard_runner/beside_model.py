"""What goes on while the model works: images load before it, masks are finished behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from amg_pipeline.records import DecodedImage, ImageRef, ImageResult

#: An image's pixels, or the row that it has without them.
Loaded = DecodedImage | ImageResult

#: Images that the model is through with and that have no row yet; bounds the masks in memory.
_MOST_UNFINISHED = 2


def load_ahead(
    refs: Sequence[ImageRef],
    known: Mapping[int, ImageResult],
    load: Callable[[ImageRef], Loaded],
    *,
    threads: int,
) -> Generator[Loaded, None, None]:
    """Load images in order, at most one per thread beyond the one in use.

    Args:
        refs: The images.
        known: Rows of images that are not to be loaded, by number.
        load: Loads an image, in a thread.
        threads: How many there are.
    """
    waiting: deque[Future[Loaded]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for index, ref in enumerate(refs):
                if index in known:
                    waiting.append(_done(known[index]))
                else:
                    waiting.append(pool.submit(load, ref))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _done(row: ImageResult) -> Future[Loaded]:
    future: Future[Loaded] = Future()
    future.set_result(row)
    return future


@contextmanager
def one_by_one() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run jobs in a thread, in order, a few waiting at most; none after one that failed.

    Yields:
        What takes a job. It and the end of the block raise what a job has raised.
    """
    unfinished: deque[Future[None]] = deque()

    def run(job: Callable[[], None], before: Future[None] | None) -> None:
        if before is not None:
            before.result()
        job()

    def submit(job: Callable[[], None]) -> None:
        before = unfinished[-1] if unfinished else None
        unfinished.append(pool.submit(run, job, before))
        while unfinished and (unfinished[0].done() or len(unfinished) > _MOST_UNFINISHED):
            unfinished.popleft().result()

    with ThreadPoolExecutor(1, thread_name_prefix="finish") as pool:
        yield submit
        for future in unfinished:
            future.result()
