"""Remedies as shell: every command parses, and those that can be run here do what they say."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.fleet.test_preflight import found, in_facts, in_measured, measured, sound
from windrow.engine.fleet import preflight
from windrow.engine.fleet.membership import Membership
from windrow.engine.fleet.preflight_looked import GIB, Looked, Probe
from windrow.engine.fleet.preflight_rules import preflight_checks
from windrow.engine.fleet.remedies import bind_snap, download, install, open_port, rename_host

__all__ = ["found", "measured", "sound"]

ODD = ["/mnt/a b", "/mnt/it's", "/data;rm -rf x", "/mnt/$(id)", "/mnt/`id`", "/mnt/#1", "/mnt/a\\b"]
COMMAND = re.compile(r"^(?:sudo |echo |HF_HOME=|btcli )|: (?=sudo )")


def commands(remedy: str) -> str:
    """The shell part of a remedy: from its first command on, up to the sentence that follows."""
    start = COMMAND.search(remedy)
    if start is None:
        return ""
    return re.split(r"\. [A-Z]|, on bare|\. ufw", remedy[start.end() if start[0] == ": " else 0 :])[
        0
    ]


def parses(shell: str) -> bool:
    return subprocess.run(["bash", "-n"], input=shell, text=True, check=False).returncode == 0


def test_every_command_of_every_rule_is_shell(sound: Looked) -> None:
    """A machine that breaks every rule at once, with the worst paths."""
    found_none = Membership(netuid=64, uid=None, siblings=2, axon="8.8.8.8:1", incentive=0.0)
    said: set[str] = set()
    for path in ["/mnt", *ODD, "/", "/x\nrm -rf /", "-rf"]:
        mount = preflight.Mount(path=path, device="/dev/md0", bytes=2000 * GIB, free=GIB)
        looked = in_measured(
            snap_mount=None, largest_mount=mount, cache_path=path, cache_writable=False,
            hostname="other", system_id="debian", programs=(), clock_synchronised=False,
            ip_forward=False, persistent_gpus=0, ecc_errors=1, xid_errors=1, fabric_manager=False,
            container_gpus=False, compose=False, busy_ports=(7,),
            listening=(("0.0.0.0", 9200),),
            models=(preflight.Cached(name="a/b", bytes=0, whole=False),),
        )(in_facts(driver="500.1", cuda="11.0", cpu_threads=1, ram_bytes=1)(sound))  # fmt: skip
        looked = replace(
            looked,
            clock_offset=60.0,
            members={"chutes": found_none},
            probes={30000: Probe(tcp=False, udp=False, accepts=False)},
        )
        said |= {check.remedy for check in preflight_checks(looked) if check.remedy}
    shell = {commands(remedy) for remedy in said} - {""}
    assert len(shell) > 15
    for command in shell:
        assert parses(command), command
        assert "rm -rf" not in command.replace("'", "").replace("/data;rm -rf x", ""), command
    for remedy in said:
        assert not re.search(r"chown -R|mkfs|mount --bind \S+ /var/snap, ", remedy), remedy
        assert remedy.isprintable()


@pytest.mark.parametrize("path", ["/", "/snap/core", "/var/snap/x", "/a\nb", "", "-x"])
def test_a_volume_that_cannot_be_bound_gets_words_and_no_command(path: str) -> None:
    assert "sudo" not in bind_snap(path, mounted=False)
    assert "hides microk8s' data" in bind_snap(path, mounted=False)


def test_a_volume_of_its_own_is_not_bound_over() -> None:
    assert "mount --bind" not in bind_snap("/home", mounted=True)


SHIMS = {
    "sudo": 'exec "$@"',
    "snap": 'echo "$@" >> "$LOG"; [ "$1" != list ] || [ -n "$MICROK8S" ]',
}


@pytest.mark.parametrize("volume", ["home", "it's a $(disk)", "a\\b #1"])
@pytest.mark.parametrize("microk8s", ["", "yes"])
def test_binding_var_snap_keeps_microk8s_data(tmp_path: Path, volume: str, microk8s: str) -> None:
    """The remedy is run as root of a namespace of its own, over a copy of /var and /etc."""
    if not (shutil.which("unshare") and shutil.which("mount")):
        pytest.skip("not tested: binding /var/snap (install util-linux and mount)")
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("not tested: binding /var/snap (user namespaces are not allowed here)")
    for name, text in SHIMS.items():
        shim = tmp_path / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f"#!/bin/sh\n{text}\n")
        shim.chmod(0o755)
    data = tmp_path / "var" / "snap" / "microk8s" / "common"
    data.mkdir(parents=True)
    (data / "state.db").write_text("of the cluster")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "fstab").write_text("# as it was\n")
    disk = tmp_path / volume
    disk.mkdir()
    remedy = bind_snap(str(disk), mounted=False)
    script = tmp_path / "run.sh"
    # What is mounted at last is what the cluster sees; from fstab alone it must come out the same.
    script.write_text(
        f'set -eu\nmount --bind "$1/var" /var\nmount --bind "$1/etc" /etc\nPATH="$1/bin:$PATH"\n'
        f"{remedy}\ncat /var/snap/microk8s/common/state.db\numount /var/snap\n"
        "mount -a -T /etc/fstab\ncat /var/snap/microk8s/common/state.db\n"
    )
    log = tmp_path / "log"
    ended = subprocess.run(
        ["unshare", "-rm", "bash", str(script), str(tmp_path)],
        env=os.environ | {"LOG": str(log), "MICROK8S": microk8s},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("of the cluster") == 2
    assert (tmp_path / "var" / "snap" / "microk8s" / "common" / "state.db").exists()
    assert (disk / "snap" / "microk8s" / "common" / "state.db").read_text() == "of the cluster"
    assert (tmp_path / "etc" / "fstab").read_text().startswith("# as it was\n")
    words = log.read_text()
    assert ("stop microk8s" in words and "start microk8s" in words) is bool(microk8s)


@pytest.mark.parametrize("cache", ["/cache", *ODD])
@pytest.mark.parametrize("model", ["org/name", "a b", "x;touch y", "$(id)"])
def test_a_download_is_of_that_model_into_that_cache(
    tmp_path: Path, cache: str, model: str
) -> None:
    fake = tmp_path / "hf"
    fake.write_text('#!/bin/sh\nprintf "%s|%s|%s" "$HF_HOME" "$1" "$2"\n')
    fake.chmod(0o755)
    said = subprocess.run(
        ["bash", "-c", download(model, cache)],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert said.stdout == f"{cache}|download|{model}"
    assert not (tmp_path / "y").exists()


def test_what_cannot_be_said_safely_is_not_a_command() -> None:
    for model in ("a\nb", "", "--token", "\x1b[2J"):
        assert "HF_HOME=" not in download(model, "/cache")


def test_a_program_of_another_distribution_is_not_named() -> None:
    assert install("chrony", "ubuntu") == "sudo apt-get install chrony"
    assert install("chrony", "rocky") == "sudo dnf install chrony"
    assert "sudo" not in install("chrony", "nixos")


def test_dangers_are_stated() -> None:
    assert "A machine that has joined must keep its name" in rename_host("gpu-0")
    assert "private on some machines" in open_port(5000, (), chutes=False)
    assert shutil.which("bash")
