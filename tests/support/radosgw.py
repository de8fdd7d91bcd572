"""A real S3 server on this machine: one Ceph Object Gateway over one object store in memory.

Debian and Ubuntu: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd
"""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3

NEEDED = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool")
KEY_ID, SECRET = "windrow-test", "a-secret-of-the-test"
READ_KEY_ID, READ_SECRET = "windrow-reader", "another-secret-of-the-test"
ATTEMPTS = 3
START_SECONDS = 60.0
LOG_LINES = 15

# The store is put into the map by hand: a daemon that does so itself may ask the monitor before it
# has learnt which cluster that is of, is refused ("wrong fsid") and ends.
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
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = false
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_class_load_list = *
osd_class_default_list = *
osd_class_update_on_start = false
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
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


class ServerFailed(Exception):
    """The server did not start; the message ends with what each of its daemons last said."""


def missing() -> str:
    """The programs that are not installed, or nothing."""
    return ", ".join(name for name in NEEDED if shutil.which(name) is None)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """URL of a running server, gone with the block; one that does not start is tried anew.

    Its users: KEY_ID owns buckets, READ_KEY_ID may do what a bucket's policy allows.
    """
    with contextlib.ExitStack() as running:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                url = running.enter_context(_server(folder / str(attempt)))
                break
            except ServerFailed:
                if attempt == ATTEMPTS:
                    raise
        yield url


def make_bucket(name: str, url: str, *, read_by: str | None = None) -> Any:
    """A new bucket, and the client that made it. read_by: a user who may list and read it."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=name)
    if read_by is not None:
        allowed = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam:::user/{read_by}"},
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [allowed]}
        client.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    return client


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    gateway, monitor = _free_ports(2)
    fsid, store = str(uuid.uuid4()), str(uuid.uuid4())
    configuration = folder / "ceph.conf"
    configuration.write_text(
        CONFIGURATION.format(fsid=fsid, folder=folder, gateway=gateway, monitor=monitor)
    )
    given = ["-c", str(configuration)]
    address, monmap = f"[v1:127.0.0.1:{monitor}]", str(folder / "monmap")
    url = f"http://127.0.0.1:{gateway}"
    daemons: dict[str, subprocess.Popen[bytes]] = {}

    with contextlib.ExitStack() as running:

        def start(*command: str) -> None:
            daemons[command[0]] = running.enter_context(_running(folder, command))

        def until(done: Callable[[], object], what: str) -> None:
            _until(done, what, folder, daemons)

        def ceph(*command: str) -> bytes:
            asked = ["ceph", *given, "--connect-timeout", "10", *command]
            return subprocess.run(asked, check=True, capture_output=True, timeout=20).stdout

        try:
            _run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
            _run("ceph-mon", *given, "--mkfs", "-i", "a", "--monmap", monmap)
            start("ceph-mon", *given, "-i", "a", "-f")
            until(lambda: ceph("osd", "new", store), "the monitor answers")
            place = ["host=a", "root=default"]
            until(lambda: ceph("osd", "crush", "add", "osd.0", "1.0", *place), "the map is made")
            _run("ceph-osd", *given, "-i", "0", "--mkfs", "--osd-uuid", store)
            start("ceph-osd", *given, "-i", "0", "-f")
            until(lambda: _is_up(ceph("osd", "stat", "--format", "json")), "the store is up")
            start("radosgw", *given, "-n", "client.rgw.a", "-f")
            until(lambda: _answers(url), "the gateway answers")
            for user, key_id, secret in (
                ("test", KEY_ID, SECRET),
                ("reader", READ_KEY_ID, READ_SECRET),
            ):
                named = [f"--uid={user}", f"--display-name={user}"]
                keys = [f"--access-key={key_id}", f"--secret-key={secret}"]
                admin = ["radosgw-admin", *given, "-n", "client.rgw.a", "user", "create"]
                _run(*admin, *named, *keys)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            output = getattr(error, "stderr", None) or b""
            raise ServerFailed(
                f"{error}\n{output.decode(errors='replace')}\n{_logs(folder)}"
            ) from error
        yield url


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)


@contextlib.contextmanager
def _running(folder: Path, command: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    with (
        (folder / f"{command[0]}.out").open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _until(
    done: Callable[[], object],
    what: str,
    folder: Path,
    daemons: dict[str, subprocess.Popen[bytes]],
) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if done() is not False:
                return
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pass
        for name, process in daemons.items():
            if process.poll() is not None:
                raise ServerFailed(f"{name} ended before {what}\n{_logs(folder)}")
        if time.monotonic() > end:
            raise ServerFailed(f"not in {START_SECONDS:.0f} s: {what}\n{_logs(folder)}")
        time.sleep(0.1)


def _is_up(answer: bytes) -> bool:
    return json.loads(answer)["num_up_osds"] == 1


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


def _logs(folder: Path) -> str:
    texts = []
    for path in sorted([*folder.glob("*.log"), *folder.glob("*.out")]):
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
        texts.append("\n".join([f"--- {path.name}", *lines]))
    return "\n".join(texts)
