"""`amg ...` on S3 as a user gives it: a process of its own, with the usual variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amg_pipeline.config import StorageSettings
from amg_pipeline.storage.connections import configure_stores
from amg_pipeline.storage.object_store import ObjectStore
from tests.photo_runs import stored_masks, write_photo
from tests.s3.conftest import UseServer
from tests.s3.faulty_proxy import faulty_proxy
from tests.s3.s3_server import S3Server
from tests.s3.test_s3_runs import begin_bad_day, had_a_bad_day, upload

pytestmark = pytest.mark.s3

FEW_POINTS = ("--set", "amg.points_per_side=3", "--set", "output.shard_size=2")


def amg(server: S3Server, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "amg_pipeline.cli", *words],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, **server.environment(), **variables},
        check=False,
    )
    for secret in (server.secret_key, server.access_key):
        assert secret not in ended.stdout + ended.stderr
    return ended


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        write_photo(folder / f"{number}.png", height=40 + number, width=64, seed=number)
    return folder


@pytest.mark.timeout(900)
def test_a_run_through_a_bad_network_gives_the_bytes_of_a_local_one(
    photos: Path, ceph: S3Server, use_server: UseServer, tmp_path: Path
) -> None:
    inputs, bucket = upload(photos, ceph), ceph.new_bucket()
    local = tmp_path / "out"
    calm = amg(ceph, "run", inputs, str(local), "--local", *FEW_POINTS)
    assert calm.returncode == 0, calm.stderr
    with faulty_proxy(ceph.endpoint, seed=2, slow_s=0.2) as proxy:
        begin_bad_day(proxy)
        behind = ceph.through(proxy.endpoint)
        stormy = amg(behind, "run", inputs, f"s3://{bucket}/out", "--local", *FEW_POINTS)
        assert stormy.returncode == 0, stormy.stderr
        assert had_a_bad_day(proxy)
    assert "6 images" in stormy.stdout
    objects = ceph.objects(bucket, "out/masks/")
    assert {f"out/{key}": data for key, data in stored_masks(local).items()} == objects
    assert len(objects) == 3
    for secret in (ceph.secret_key, ceph.access_key):
        for data in ceph.objects(bucket).values():
            assert secret.encode() not in data


def test_a_missing_bucket_ends_the_run_at_once(photos: Path, ceph: S3Server) -> None:
    ended = amg(ceph, "run", str(photos), "s3://no-such-bucket-here/out", "--local")
    assert ended.returncode == 1
    assert "the bucket must exist" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_refused_credentials_end_the_run_at_once(photos: Path, ceph: S3Server) -> None:
    out = f"s3://{ceph.new_bucket()}/out"
    stranger = S3Server(ceph.endpoint, ceph.access_key, "not-the-secret-of-anyone")
    ended = amg(stranger, "run", str(photos), out, "--local")
    assert ended.returncode == 1
    assert "access must be permitted" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_credentials_at_all_end_the_run_at_once(photos: Path, ceph: S3Server) -> None:
    out = f"s3://{ceph.new_bucket()}/out"
    ended = amg(ceph, "plan", str(photos), out, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert ended.returncode == 1
    assert "NoCredentialsError" in ended.stderr


# Settings and environment


def profile_files(folder: Path, server: S3Server) -> dict[str, str]:
    credentials, config = folder / "credentials", folder / "config"
    credentials.write_text(
        f"[team]\naws_access_key_id = {server.access_key}\n"
        f"aws_secret_access_key = {server.secret_key}\n"
    )
    config.write_text(f"[profile team]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n")
    return {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_CONFIG_FILE": str(config)}


def test_a_profile_of_the_environment_is_enough(ceph: S3Server, tmp_path: Path) -> None:
    bucket = ceph.new_bucket()
    code = (
        "import sys; from amg_pipeline.storage.object_store import ObjectStore\n"
        f"store = ObjectStore.open('s3://{bucket}/out'); store.put('a', b'1')\n"
        "print([info.key for info in store.list()])"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AWS_")
    } | profile_files(tmp_path, ceph)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "AWS_PROFILE": "team", "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout == "['a']\n", ended.stderr


def test_settings_win_over_the_environment(
    ceph: S3Server, use_server: UseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = ceph.new_bucket()
    # A port where nothing listens, and nobody's keys.
    use_server(S3Server("http://127.0.0.1:9", "nobody", "nothing"))
    for name, value in profile_files(tmp_path, ceph).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    configure_stores(StorageSettings(endpoint_url=ceph.endpoint, profile="team"))
    store = ObjectStore.open(f"s3://{bucket}/out")
    store.put("a", b"1")
    assert store.read("a") == b"1"


def test_anonymous_access(
    ceph: S3Server, use_server: UseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, client = ceph.new_bucket(), ceph.client()
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    client.put_object(Bucket=bucket, Key="photos/a", Body=b"1")
    use_server(ceph)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for anonymous, variable in ((True, ""), (False, "YES")):
        configure_stores(StorageSettings(anonymous=anonymous))
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", variable)
        store = ObjectStore.open(f"s3://{bucket}/photos")
        assert [info.key for info in store.list()] == ["a"]
        assert store.read("a") == b"1"
