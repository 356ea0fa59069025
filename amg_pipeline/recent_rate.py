"""How fast a run is, from the times at which its shards were committed."""

from __future__ import annotations

from collections.abc import Sequence

#: How far back one looks, at least; a few shards of each worker, however many there are.
_WINDOW_SECONDS = 600.0
_SHARDS_OF_A_WORKER = 4.0
#: A run that has committed nothing for longer, and for longer than two shards take, stands still.
_ALIVE_SECONDS = 900.0
#: Between two commits further apart, by the same rule, it stood still.
_PAUSE_SECONDS = 60.0


def recent_rate(
    commits: Sequence[tuple[float, int]], *, shard_seconds: float, now: float
) -> float | None:
    """Give images per second since the last pause, of the last minutes at most.

    Args:
        commits: When each shard was committed, in seconds since 1970 and in order, and its images.
        shard_seconds: How long the slowest of the last shards took.
        now: The time.

    Returns:
        None if nothing was committed lately.
    """
    if not commits:
        return None
    last = commits[-1][0]
    if now - last > max(_ALIVE_SECONDS, 2 * shard_seconds):
        return None
    window = max(_WINDOW_SECONDS, _SHARDS_OF_A_WORKER * shard_seconds)
    images, first = 0, last
    for time, count in reversed(commits):
        if first - time > max(_PAUSE_SECONDS, 2 * shard_seconds):
            begin = first - shard_seconds
            break
        if last - time > window:
            # Work on the first ones went on before.
            begin = time
            break
        images, first = images + count, time
    else:
        begin = first - shard_seconds
    return images / (last - begin) if last > begin else None
