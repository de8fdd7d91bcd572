"""A real S3 server on this machine: one Ceph Object Gateway over one object store in memory.

Debian and Ubuntu: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd
"""

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

NEEDED = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool")
KEY_ID, SECRET = "windrow-test", "a-secret-of-the-test"
START_SECONDS = 120.0

CONFIGURATION = """
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v1:127.0.0.1:{monitor}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
mon_allow_pool_size_one = true
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_class_load_list = *
osd_class_default_list = *
osd_class_update_on_start = false
mon_data_avail_warn = 2
mon_data_avail_crit = 1
run_dir = {folder}
admin_socket = {folder}/$name.asok
pid_file = {folder}/$name.pid
log_file = {folder}/$name.log
mon_data = {folder}/mon
osd_data = {folder}/osd
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
rgw_data = {folder}/rgw
"""


def missing() -> str:
    """The programs that are not installed, or nothing."""
    return ", ".join(name for name in NEEDED if shutil.which(name) is None)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """URL of a running server whose one user has KEY_ID and SECRET; gone with the block."""
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    gateway, monitor = _free_port(), _free_port()
    fsid = str(uuid.uuid4())
    configuration = folder / "ceph.conf"
    configuration.write_text(
        CONFIGURATION.format(fsid=fsid, folder=folder, gateway=gateway, monitor=monitor)
    )
    given = ["-c", str(configuration)]
    address = f"[v1:127.0.0.1:{monitor}]"
    monmap = str(folder / "monmap")
    _run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
    _run("ceph-mon", *given, "--mkfs", "-i", "a", "--monmap", monmap)
    with contextlib.ExitStack() as running:
        running.enter_context(_running("ceph-mon", *given, "-i", "a", "-f"))
        store = str(uuid.uuid4())
        _until_done("ceph", *given, "osd", "new", store)
        _run("ceph-osd", *given, "-i", "0", "--mkfs", "--osd-uuid", store)
        running.enter_context(_running("ceph-osd", *given, "-i", "0", "-f"))
        running.enter_context(_running("radosgw", *given, "-n", "client.rgw.a", "-f"))
        url = f"http://127.0.0.1:{gateway}"
        _until_answering(url)
        user = ["--uid=test", "--display-name=test", f"--access-key={KEY_ID}"]
        admin = ["radosgw-admin", *given, "-n", "client.rgw.a", "user", "create", *user]
        _run(*admin, f"--secret-key={SECRET}")
        yield url


def make_bucket(name: str, url: str) -> Any:
    """A new bucket, and the client that made it."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=name)
    return client


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)


@contextlib.contextmanager
def _running(*command: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def _until_done(*command: str) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=5)
            return
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            if time.monotonic() > until:
                raise


def _until_answering(url: str) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
