"""The page's data over HTTP."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from amg_pipeline.decisions.reviewer_log import read_reviews
from amg_pipeline.storage.mask_table import load_masks
from tests.export.stored_runs import IMAGES

#: The order of the plan.
IDS = sorted([*IMAGES, "broken.png"])


def change(client: TestClient, number: int, **what: object) -> object:
    body = {"image_id": IDS[number], "change": what}
    return client.post(f"/api/images/{number}/changes", json=body)


def names_of(client: TestClient, number: int) -> list[str]:
    return client.get(f"/api/images/{number}").json()["masks"]["name"]


def test_run_says_how_far_it_is(client: TestClient) -> None:
    assert client.get("/api/run").json() == {
        "title": "run",
        "reviewer": "anna",
        "num_images": 6,
        "num_done": 0,
        "fingerprint": client.get("/api/run").json()["fingerprint"],
        "tags": [],
    }


def test_image_has_its_masks_as_they_are_stored(client: TestClient, output: Path) -> None:
    rows = {row["image_id"]: row for row in load_masks(str(output)).to_table().to_pylist()}

    for number, image_id in enumerate(IDS):
        shown, row = client.get(f"/api/images/{number}").json(), rows[image_id]

        assert (shown["image_id"], shown["status"]) == (image_id, row["status"])
        assert (shown["width"], shown["height"]) == (row["width"] or 0, row["height"] or 0)
        assert shown["masks"]["counts"] == [mask["counts"] for mask in row["masks"]]
        assert shown["masks"]["bbox"] == [mask["bbox"] for mask in row["masks"]]
        assert shown["masks"]["predicted_iou"] == pytest.approx(
            [mask["predicted_iou"] for mask in row["masks"]]
        )
        assert len(set(shown["masks"]["name"])) == row["num_masks"]
        assert shown["review"] == {"masks": {}, "merges": {}, "is_done": False}


def test_score_is_written_as_people_write_it(client: TestClient) -> None:
    """A slider at 0.95 must keep the mask whose float32 is below the double 0.95."""
    assert b'"predicted_iou":[0.95,' in client.get("/api/images/0").content


def test_picture_is_the_image_shrunk_to_what_is_asked_for(client: TestClient) -> None:
    answer = client.get("/api/images/0/picture")

    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 48)


@pytest.mark.parametrize("path", ["/api/images/6", "/api/images/-1", "/api/images/99999999999999"])
def test_image_that_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.get(f"{path}/picture").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e%2fapp.py",
        "/page/..%2f..%2ferrors.py",
        "/page//etc/passwd",
        "/api/images/..%2f..%2fetc%2fpasswd/picture",
        "/api/images/a.png/picture",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_but_the_page_and_images_by_number_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code in (404, 422)
    assert "import" not in answer.text


def test_broken_image_has_no_picture_but_a_reason(client: TestClient) -> None:
    number = IDS.index("broken.png")

    assert client.get(f"/api/images/{number}").json()["status"] == "decode_error"
    answer = client.get(f"/api/images/{number}/picture")
    assert answer.status_code == 404
    assert "JPEG" in answer.json()["error"]


def test_decision_is_there_after_it_is_answered(client: TestClient, output: Path) -> None:
    first, second, *_ = names_of(client, 0)

    answer = change(
        client,
        0,
        masks={
            first: {"decision": "accepted", "tags": [" cat "]},
            second: {"decision": "rejected"},
        },
        is_done=True,
    )

    assert answer.status_code == 200
    expected = {
        first: {"decision": "accepted", "tags": ["cat"]},
        second: {"decision": "rejected", "tags": []},
    }
    assert answer.json()["review"] == {"masks": expected, "merges": {}, "is_done": True}
    assert answer.json()["num_done"] == 1
    assert client.get("/api/images/0").json()["review"]["masks"] == expected
    assert client.get("/api/run").json()["tags"] == ["cat"]
    stored = read_reviews(str(output))["anna"][IDS[0]]
    assert stored.masks.keys() == {first, second}
    assert stored.is_done


def test_merge_is_the_union_and_can_be_taken_back(client: TestClient) -> None:
    names = names_of(client, 0)
    merge = "+".join(sorted(names[4:6]))

    review = change(client, 0, merges={merge: {"decision": "accepted"}}).json()["review"]

    assert review["merges"][merge]["parts"] == [4, 5]
    assert review["merges"][merge]["decision"] == "accepted"
    areas = client.get("/api/images/0").json()["masks"]["area"]
    assert review["merges"][merge]["area"] >= max(areas[4:6])
    review = change(client, 0, merges={merge: None}).json()["review"]
    assert review["merges"] == {}


@pytest.mark.parametrize(
    ("what", "status"),
    [
        pytest.param({"masks": {"0" * 16: {"decision": "accepted"}}}, 422, id="unknown-mask"),
        pytest.param({"merges": {"a": {}}}, 422, id="merge-of-one"),
        pytest.param({"merges": {"b+a": {}}}, 422, id="merge-out-of-order"),
        pytest.param({"merges": {"a+b": {}}}, 422, id="merge-of-unknown"),
        pytest.param({"masks": {"0": {"decision": "perhaps"}}}, 422, id="word"),
        pytest.param({"surprise": 1}, 422, id="key"),
    ],
)
def test_change_that_makes_no_sense_is_refused_whole(
    client: TestClient, output: Path, what: dict[str, object], status: int
) -> None:
    assert change(client, 0, **what).status_code == status
    assert (output / "_amg" / "reviews" / "anna.jsonl").read_bytes() == b""


def test_change_of_another_image_than_meant_is_refused(client: TestClient) -> None:
    body = {"image_id": "b/c d.png", "change": {"is_done": True}}

    answer = client.post("/api/images/0/changes", json=body)

    assert answer.status_code == 409
    assert "Load the page again" in answer.json()["error"]


def test_next_open_goes_round_and_leaves_out_what_is_done_or_failed(client: TestClient) -> None:
    broken = IDS.index("broken.png")
    change(client, 0, is_done=True)

    seen, number = [], 0
    for _ in range(4):
        number = client.get("/api/next", params={"after": number}).json()["number"]
        seen.append(number)
        change(client, number, is_done=True)

    assert sorted(seen) == [n for n in range(1, 6) if n != broken]
    assert client.get("/api/next", params={"after": 0}).json() == {"number": None}
    change(client, 0, is_done=False)
    assert client.get("/api/next", params={"after": 0, "step": -1}).json() == {"number": 0}


def test_images_are_found_by_a_part_of_their_id(client: TestClient) -> None:
    found = client.get("/api/find", params={"text": "C D"}).json()["images"]

    assert [entry["image_id"] for entry in found] == ["b/c d.png", "b/c d.webp"]
    assert [IDS[entry["number"]] for entry in found] == ["b/c d.png", "b/c d.webp"]
    assert client.get("/api/find", params={"text": ".*"}).json() == {"images": []}


def test_page_comes_without_anything_of_the_run_in_it(client: TestClient) -> None:
    page = client.get("/")

    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert not any(image_id in page.text for image_id in IDS)
    assert client.get("/page/main.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/page/review.css").status_code == 200


def test_error_of_the_store_is_an_answer_and_not_the_end(client: TestClient, output: Path) -> None:
    shard = next(iter(sorted((output / "masks").iterdir())))
    data = shard.read_bytes()
    shard.write_bytes(b"no parquet")
    try:
        answer = client.get("/api/images/0")
    finally:
        shard.write_bytes(data)

    assert answer.status_code == 503
    assert "amg verify" in json.loads(answer.content)["error"]
    assert client.get("/api/images/0").status_code == 200
