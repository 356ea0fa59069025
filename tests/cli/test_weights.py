"""amg weights list, inspect, convert, fetch."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.sam.weights import OFFICIAL_WEIGHTS
from amg_pipeline.sam.weights.architecture import METADATA_KEY, expected_shapes
from amg_pipeline.sam.weights.official import OfficialWeights
from amg_pipeline.sam.weights.safetensors_file import write_safetensors
from amg_pipeline.sam.weights.tensors import SourceTensor
from tests.cli.conftest import Amg
from tests.sam.small_sizes import SMALL

#: The module; as an attribute of its package, the name is that of the command.
WEIGHTS = import_module("amg_pipeline.cli.weights")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkpoint of a small SAM."""
    rng = np.random.default_rng(0)
    path = tmp_path / "small.safetensors"

    def tensor(name: str, shape: tuple[int, ...]) -> SourceTensor:
        values = rng.standard_normal(shape).astype(np.float32)
        return SourceTensor(name, shape, "float32", lambda: values)

    tensors = {name: tensor(name, shape) for name, shape in expected_shapes(SMALL).items()}
    with path.open("wb") as file:
        metadata = {METADATA_KEY: SMALL.to_json()}
        write_safetensors(file, tensors, dtype="float32", metadata=metadata)
    return path


def test_list_names_every_variant(amg: Amg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WEIGHTS, "packaged_weights", lambda variant: "/tiny.safetensors")

    ended = amg("weights", "list")

    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0] == "tiny   in the package"
    assert [line.split()[0] for line in lines] == ["tiny", "vit_b", "vit_l", "vit_h"]
    for line, official in zip(lines[1:], OFFICIAL_WEIGHTS.values(), strict=True):
        assert line.endswith(f" MiB at {official.url}")


def test_list_of_a_package_without_weights(amg: Amg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WEIGHTS, "packaged_weights", lambda variant: None)

    assert amg("weights", "list").out.splitlines()[0] == "tiny   no weights"


def test_inspect_as_text(amg: Amg, small: Path) -> None:
    ended = amg("weights", "inspect", small)

    assert ended.code == 0
    shown = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert shown["source"] == str(small)
    assert shown["format"] == "safetensors"
    assert shown["variant"] == "custom"
    assert "embed_dim=12" in shown["architecture"]
    assert shown["dtypes"] == "float32"
    assert shown["sha256"] == hashlib.sha256(small.read_bytes()).hexdigest()
    assert shown["missing"] == shown["left_over"] == "none"


def test_inspect_as_json(amg: Amg, small: Path) -> None:
    description = json.loads(amg("weights", "inspect", small, "--json").out)

    assert description["size_bytes"] == small.stat().st_size
    assert description["num_tensors"] == len(expected_shapes(SMALL))
    assert description["missing"] == description["left_over"] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("nothing.pth", "nothing.pth", id="missing"),
        pytest.param("text.pth", "begins with b'no weigh'", id="no-weights"),
        pytest.param("vit_h", "amg weights fetch vit_h", id="not-fetched"),
    ],
)
def test_inspect_of_something_else_is_one_line(
    amg: Amg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "text.pth").write_text("no weights at all")

    ended = amg("weights", "inspect", name if name == "vit_h" else tmp_path / name)

    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_convert_to_pth_and_back(amg: Amg, small: Path, tmp_path: Path) -> None:
    there = amg("weights", "convert", small, tmp_path / "small.pth")
    back = amg("weights", "convert", tmp_path / "small.pth", tmp_path / "back.safetensors")

    assert (there.code, back.code) == (0, 0)
    assert there.out == f"{tmp_path / 'small.pth'}\n"
    first, second = (
        json.loads(amg("weights", "inspect", path, "--json").out)
        for path in (small, tmp_path / "back.safetensors")
    )
    assert first["num_parameters"] == second["num_parameters"]
    assert second["missing"] == second["left_over"] == []


def test_convert_to_an_unknown_ending_is_refused(amg: Amg, small: Path, tmp_path: Path) -> None:
    ended = amg("weights", "convert", small, tmp_path / "small.onnx")

    assert ended.code == 2
    assert ".safetensors, .pth" in ended.err
    assert not (tmp_path / "small.onnx").exists()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the folder `www`."""
    (tmp_path / "www").mkdir()
    handler = partial(QuietHandler, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def official(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Publish a small file as the official weights of vit_b."""
    body = bytes(range(256)) * 40
    (tmp_path / "www" / "small.pth").write_bytes(body)

    class LoopbackWeights(OfficialWeights):
        @property
        def url(self) -> str:
            return f"{server}/{self.file_name}"

    expected = LoopbackWeights(
        file_name="small.pth", size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest()
    )
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "vit_b", expected)
    return body


def test_fetch_downloads_once(amg: Amg, official: bytes, tmp_path: Path) -> None:
    ended = amg("weights", "fetch", "vit_b", "--cache-dir", tmp_path / "cache")

    path = tmp_path / "cache" / "small.pth"
    assert ended.code == 0
    assert ended.out == f"{path}\n"
    assert ended.err.splitlines()[-1] == "vit_b: 0 of 0 MiB"
    assert path.read_bytes() == official
    (tmp_path / "www" / "small.pth").unlink()
    again = amg("weights", "fetch", "vit_b", "--cache-dir", tmp_path / "cache")
    assert (again.code, again.out, again.err) == (0, f"{path}\n", "")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda path: path.unlink(), "nothing there", id="absent"),
        pytest.param(lambda path: path.write_bytes(b"short"), "one of 5", id="short"),
        pytest.param(
            lambda path: path.write_bytes(bytes(256 * 40)), "Expected the SHA-256", id="other-bytes"
        ),
    ],
)
def test_fetch_that_fails_is_one_line(
    amg: Amg, official: bytes, tmp_path: Path, damage: object, message: str
) -> None:
    assert callable(damage)
    damage(tmp_path / "www" / "small.pth")

    ended = amg("weights", "fetch", "vit_b", "--cache-dir", tmp_path / "cache")

    assert ended.code == 2
    assert ended.last_line.startswith("amg: Expected")
    assert message in ended.last_line
    assert not (tmp_path / "cache" / "small.pth").exists()


def test_fetch_of_an_unknown_variant_is_refused(amg: Amg, tmp_path: Path) -> None:
    ended = amg("weights", "fetch", "tiny", "--cache-dir", tmp_path)

    assert ended.code == 2
    assert ended.err == "amg: Official weights exist for vit_b, vit_l, vit_h. Received: 'tiny'\n"
