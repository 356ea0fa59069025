"""Where the objects of an output lie (design: output directory)."""

from __future__ import annotations

import re

OWN_FOLDER = "_amg/"
PLAN_KEY = "_amg/plan.json"
PLAN_FOLDER = "_amg/plan/"
ATTEMPTS_FOLDER = "_amg/attempts/"
STATS_FOLDER = "_amg/stats/"
REVIEWS_FOLDER = "_amg/reviews/"
SUMMARY_KEY = "_amg/summary.json"
SUCCESS_KEY = "_SUCCESS"
MASKS_FOLDER = "masks/"
OLD_FOLDER = "_old/"

#: How the keys of a run's objects begin.
RUN_KEYS = (OWN_FOLDER, MASKS_FOLDER, SUCCESS_KEY)

_PREFIX_DIGITS = 8
_ATTEMPT_KEY = re.compile(r"_amg/attempts/([0-9]{6,})/([1-9][0-9]*)(?:-[0-9a-f]{8})?\.json")
_EDITION_KEY = re.compile(r"_amg/plan-([1-9][0-9]*)\.json")
_SHARD_KEY = re.compile(r"masks/part-(\d{6,})-([0-9a-f]{8})\.parquet")


def fingerprint_prefix(fingerprint: str) -> str:
    """Shorten a fingerprint to the 8 digits that names contain."""
    return fingerprint[:_PREFIX_DIGITS]


def shard_name(shard_id: int) -> str:
    """Write a shard's number with at least 6 digits."""
    return f"{shard_id:06d}"


def shard_key(shard_id: int, fingerprint: str) -> str:
    """Name the object whose existence means that a shard is done."""
    return f"{MASKS_FOLDER}part-{shard_name(shard_id)}-{fingerprint_prefix(fingerprint)}.parquet"


def parse_shard_key(key: str) -> tuple[int, str] | None:
    """Read the shard's number and the fingerprint's 8 digits; None for any other key."""
    match = _SHARD_KEY.fullmatch(key)
    if match is None or shard_name(int(match[1])) != match[1]:
        return None
    return int(match[1]), match[2]


def edition_key(edition: int) -> str:
    """Name the n-th edition of a plan, which has all images of those before it and some more."""
    return PLAN_KEY if edition == 1 else f"{OWN_FOLDER}plan-{edition}.json"


def parse_edition_key(key: str) -> int | None:
    """Read the number of a plan's edition; None for any other key."""
    if key == PLAN_KEY:
        return 1
    match = _EDITION_KEY.fullmatch(key)
    return int(match[1]) if match and match[1] != "1" else None


def plan_part_key(index: int, digest: str) -> str:
    """Name a part of the plan after its content, so that two planners never mix their parts."""
    return f"{PLAN_FOLDER}part-{index:05d}-{digest[:_PREFIX_DIGITS]}.parquet"


def attempt_key(shard_id: int, number: int, token: str) -> str:
    """Name the record of a shard's n-th failed attempt.

    Args:
        shard_id: The shard's number.
        number: The attempt's number.
        token: 8 hex digits by which two drivers' records of the same number differ.
    """
    return f"{ATTEMPTS_FOLDER}{shard_name(shard_id)}/{number}-{token}.json"


def parse_attempt_key(key: str) -> tuple[int, int] | None:
    """Read the numbers of the shard and of its failed attempt; None for any other key."""
    match = _ATTEMPT_KEY.fullmatch(key)
    return (int(match[1]), int(match[2])) if match else None


def stats_key(shard_id: int) -> str:
    """Name the timings of a shard."""
    return f"{STATS_FOLDER}{shard_name(shard_id)}.json"
