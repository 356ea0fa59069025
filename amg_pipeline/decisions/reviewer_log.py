"""The log of each reviewer, beside the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from amg_pipeline.decisions.events import Event, ImageReview, fold, take_up
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.append_log import AppendLog, list_logs, open_log, read_log
from amg_pipeline.storage.layout import REVIEWS_FOLDER

_MOST_CHARACTERS = 64


class ReviewerLog:
    """The decisions of one reviewer, kept in memory and beside the run; a context manager.

    Args:
        log: Where lines go.
        lines: Those that are there.
    """

    def __init__(self, log: AppendLog, lines: Iterable[bytes]) -> None:
        self._log = log
        self.images, self.num_unreadable = fold(lines)

    @classmethod
    def open(cls, uri: str, reviewer: str) -> ReviewerLog:
        """Open a reviewer's log to go on with it; it need not exist.

        Args:
            uri: The run's output.
            reviewer: Any short name.

        Raises:
            ConfigError: If the name is unfit, or another process has the log open.
            StorageError: If it cannot be opened or read.
        """
        name = check_reviewer(reviewer)
        log = open_log(uri, REVIEWS_FOLDER, name)
        return cls(log, read_log(uri, REVIEWS_FOLDER, name))

    def record(self, event: Event) -> ImageReview:
        """Add a line, and take it up once it is there for good.

        Raises:
            StorageError: If it could not be written; nothing is changed then.
        """
        self._log.append(event.model_dump_json().encode())
        return take_up(self.images, event)

    def __enter__(self) -> ReviewerLog:
        self._log.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._log.__exit__(None, None, None)


def check_reviewer(name: str) -> str:
    """Check a reviewer's name.

    Raises:
        ConfigError: If it is empty, long, or not printable.
    """
    if not name.strip() or len(name) > _MOST_CHARACTERS or not name.isprintable():
        raise ConfigError(
            f"A reviewer's name must have 1 to {_MOST_CHARACTERS} printable characters. "
            f"Received: {name[: 2 * _MOST_CHARACTERS]!r}"
        )
    return name.strip()


def read_reviews(uri: str, reviewers: Sequence[str] = ()) -> dict[str, dict[str, ImageReview]]:
    """Read what reviewers said: by reviewer, by image.

    Args:
        uri: The run's output.
        reviewers: Whose; all by default.

    Raises:
        ConfigError: If a reviewer that is named, or any, has no log.
        StorageError: If a log cannot be read.
    """
    there = list_logs(uri, REVIEWS_FOLDER)
    missing = sorted(set(reviewers) - set(there))
    if missing or not there:
        known = f"There are: {', '.join(map(repr, there))}" if there else "Nobody has"
        raise ConfigError(
            f"Reviews must lie in {REVIEWS_FOLDER} of the run, made by `amg review`. "
            f"Received: {', '.join(map(repr, missing)) or 'a run without'}. {known}"
        )
    return {name: fold(read_log(uri, REVIEWS_FOLDER, name))[0] for name in (reviewers or there)}
