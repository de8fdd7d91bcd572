"""Preflight: measured on the machine, held against each network's rules by who asked."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from windrow.engine.fleet import facts, preflight, preflight_measure, preflight_reach
from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.inventory import Model, Node, WireGuard
from windrow.engine.fleet.membership import Membership
from windrow.engine.fleet.preflight_looked import GIB, Arrival, Looked, Probe
from windrow.engine.fleet.preflight_measure import measure
from windrow.engine.fleet.preflight_rules import preflight_checks
from windrow.engine.fleet.tasks import BadRequest

ADDRESS = "8.8.4.4"
MEMBER = Membership(netuid=64, uid=3, siblings=1, axon=None, incentive=0.01)
ARRIVED = Arrival(came_from=ADDRESS, expected="token", said="token")
OPEN = Probe(tcp=True, udp=True, accepts=True)


@pytest.fixture(scope="module")
def measured() -> preflight.Measured:
    return preflight.parse(preflight.answer(preflight.challenge(preflight.Asked())))


@pytest.fixture(scope="module")
def found() -> facts.Facts:
    return facts.parse_facts(facts.answer(facts.challenge()))


def gpu(index: int = 0, **changes: Any) -> facts.GpuFacts:
    values: dict[str, Any] = {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA L40S",
        "vram_bytes": 48_300_000_000,
        "vram_used_bytes": 0,
        "processors": 142,
        "clock_mhz": 3105.0,
        "cuda_clock_khz": 2520000.0,
    }
    return facts.GpuFacts(**(values | changes))


@pytest.fixture
def sound(measured: preflight.Measured, found: facts.Facts) -> Looked:
    """A machine with nothing wrong, serving every network."""
    mount = preflight.Mount(path="/var/snap", device="/dev/md0", bytes=2000 * GIB, free=GIB)
    return Looked(
        node=Node(
            name="gpu-0",
            transport="local",
            networks=("chutes", "gonka", "compute-subnet", "compute-horde"),
            gpu="l40s",
            gpu_count=2,
            hardware_class="always_on.llm.a6000",
            public_address=ADDRESS,
            wireguard_address="192.168.0.1",
            wireguard_primary=True,
            models=(Model(name="a/b", args=("--tensor-parallel-size=2",)),),
        ),
        wireguard=WireGuard(),
        facts=found.model_copy(
            update={
                "gpus": (gpu(), gpu(1)),
                "ram_bytes": 512 * GIB,
                "cpu_threads": 64,
                "container": None,
                "driver": "580.65.06",
                "cuda": "13.0",
                "speeds": facts.Speeds(disk_read=3000, disk_write=1, ram_read=1, ram_write=1),
            }
        ),
        measured=measured.model_copy(
            update={
                "first_process": "systemd",
                "system_id": "ubuntu",
                "system_version": "22.04",
                "hostname": "gpu-0",
                "snap_mount": mount,
                "largest_mount": mount,
                "programs": ("docker", "nvidia-ctk", "snap"),
                "modules_loadable": True,
                "tdx": True,
                "compose": True,
                "container_gpus": True,
                "fabric_manager": True,
                "persistent_gpus": 2,
                "ecc_errors": 0,
                "xid_errors": 0,
                "ip_forward": True,
                "clock_synchronised": True,
                "routes": ("0.0.0.0/0 eth0", "203.0.113.0/24 eth0", "192.168.0.0/20 wg0"),
                "listening": (("127.0.0.1", 9200),),
                "cache_writable": True,
                "models": (preflight.Cached(name="a/b", bytes=1, whole=True),),
            }
        ),
        clock_offset=0.1,
        reached=preflight_reach.Reached(
            callbacks=("token",),
            registry_address="127.0.0.1",
            registry_status=200,
            peers=("192.168.0.2",),
            opened=(30000,),
            hairpin=True,
        ),
        peers=("192.168.0.2",),
        arrivals=(ARRIVED, ARRIVED, ARRIVED),
        probes={30000: OPEN, 5000: OPEN},
        members={"chutes": MEMBER, "compute-subnet": MEMBER},
    )


def refused(looked: Looked) -> list[NodeCheck]:
    return [check for check in preflight_checks(looked) if check.windrow_verdict is not True]


def test_a_sound_machine_has_nothing_to_mend(sound: Looked) -> None:
    assert refused(sound) == []
    assert len(preflight_checks(sound)) > 45


def in_measured(**changes: Any) -> Callable[[Looked], Looked]:
    return lambda looked: replace(looked, measured=looked.measured.model_copy(update=changes))


def in_reached(**changes: Any) -> Callable[[Looked], Looked]:
    return lambda looked: replace(looked, reached=looked.reached.model_copy(update=changes))  # type: ignore[union-attr]


def with_card(ref: str, looked: Looked, **changes: Any) -> Looked:
    node = looked.node.model_copy(update={"gpu": ref})
    return replace(in_measured(**changes)(looked), node=node)


def arriving(*others: str | None, said: str = "token") -> Callable[[Looked], Looked]:
    arrivals = tuple(Arrival(peer, "token", said) for peer in others)
    return lambda looked: replace(looked, arrivals=(*arrivals, ARRIVED))


def probed(**probe: bool) -> Callable[[Looked], Looked]:
    found = Probe(**({"tcp": False, "udp": False, "accepts": False} | probe))
    return lambda looked: replace(looked, probes={30000: found})


def member(**changes: Any) -> Callable[[Looked], Looked]:
    return lambda looked: replace(looked, members={"chutes": replace(MEMBER, **changes)})


def in_facts(**changes: Any) -> Callable[[Looked], Looked]:
    return lambda looked: replace(looked, facts=looked.facts.model_copy(update=changes))


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (lambda looked: replace(looked, clock_offset=3.0), {"clock"}),
        (lambda looked: replace(looked, clock_offset=3600.0), {"clock"}),
        (in_facts(ram_bytes=100 * GIB), {"ram_per_vram"}),
        (in_facts(cpu_threads=8), {"cpu_cores"}),
        (in_facts(container="docker"), {"own_machine"}),
        (in_facts(gpus=(gpu(),)), {"gpu_count", "model_layout"}),
        (in_facts(gpus=(gpu(), gpu(1, name="NVIDIA L4"))), {"gpu_kinds", "gpu_as_declared"}),
        (in_facts(gpus=(gpu(), gpu(1, vram_bytes=24 * GIB))), {"gpu_as_declared", "poc_groups"}),
        (in_facts(gpus=(gpu(), gpu(1, mig=True))), {"gpu_not_split"}),
        (in_facts(gpus=(gpu(), gpu(1, processes=2))), {"gpu_alone"}),
        (in_facts(gpus=(gpu(), gpu(1, throttle=("power cap",)))), {"gpu_full_speed"}),
        (in_measured(hostname="other"), {"node_name"}),
        (in_measured(system_version="24.04"), {"operating_system"}),
        (in_measured(programs=("docker", "snap")), {"container_runtime"}),
        (in_measured(snap_mount=None), {"storage_path", "storage_size"}),
        (in_measured(cache_writable=False), {"cache_writable"}),
        (in_measured(ip_forward=False), {"ip_forward"}),
        (in_measured(clock_synchronised=False), {"clock_kept"}),
        (in_measured(routes=("10.4.0.0/16 eth0",)), {"wireguard_overlap"}),
        (in_measured(listening=(("0.0.0.0", 9200),)), {"private_ports_closed"}),
        (in_measured(busy_ports=(8080,)), {"ports_free"}),
        (in_measured(programs=("docker", "nvidia-ctk")), {"snap_and_modules"}),
        (in_measured(modules_loadable=False), {"snap_and_modules"}),
        (in_measured(tdx=False), {"confidential_guest"}),
        (in_measured(compose=False), {"container_runtime"}),
        (in_measured(container_gpus=False), {"container_runtime"}),
        (in_measured(persistent_gpus=1), {"persistence_mode"}),
        (in_measured(ecc_errors=3), {"ecc_errors"}),
        (in_measured(xid_errors=1), {"xid_errors"}),
        (in_facts(driver="550.1"), {"driver"}),
        (in_facts(driver="570.1"), {"driver"}),
        (in_facts(cuda="12.4"), {"cuda_version"}),
        (in_facts(gpus=(gpu(), gpu(1, vram_used_bytes=6 * 10**9))), {"gpu_memory_free"}),
        (
            in_facts(speeds=facts.Speeds(disk_read=90, disk_write=1, ram_read=1, ram_write=1)),
            {"disk_speed"},
        ),
        (in_measured(routes=("172.17.0.0/16 eth0",)), {"wireguard_overlap"}),
        (
            lambda looked: replace(
                looked, node=looked.node.model_copy(update={"wireguard_address": "172.20.0.1"})
            ),
            {"wireguard_address"},
        ),
        (arriving("8.8.8.8", ADDRESS), {"same_address_out"}),
        (arriving(None), {"same_address_out"}),
        (in_reached(registry_address="1.2.3.4"), {"registry_host", "registry_answers"}),
        (in_reached(registry_address=None), {"registry_host", "registry_answers"}),
        (in_reached(registry_status=401), {"registry_answers"}),
        (in_reached(registry_status=None), {"registry_answers"}),
        (in_reached(peers=()), {"peers_reachable"}),
        (in_reached(hairpin=False), {"hairpin"}),
        (lambda looked: replace(looked, exposed=frozenset({26657})), {"private_ports_closed"}),
        (
            in_measured(models=(preflight.Cached(name="a/b", bytes=0, whole=False),)),
            {"model_cached"},
        ),
        (probed(), {"port_reachable"}),
        (probed(tcp=True, accepts=True), {"port_reachable"}),
        (probed(accepts=True), {"port_reachable"}),
        (lambda looked: replace(looked, not_probed="why", probes={}), {"port_reachable"}),
        (lambda looked: replace(looked, arrivals=()), {"same_address_out"}),
        (member(siblings=2), {"one_uid"}),
        (member(uid=None), {"hotkey_registered"}),
        (member(axon="8.8.8.8:8091"), {"no_axon"}),
        (member(incentive=0.0), {"incentive"}),
        (
            lambda looked: replace(looked, members={"chutes": "why"}),
            {"one_uid", "hotkey_registered", "no_axon", "incentive"},
        ),
        (
            lambda looked: replace(
                looked, node=looked.node.model_copy(update={"public_address": "10.0.0.1"})
            ),
            {"public_address", "same_address_out", "port_reachable"},
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_mends_it(
    sound: Looked, change: Callable[[Looked], Looked], checks: set[str]
) -> None:
    wrong = refused(change(sound))
    assert {check.check for check in wrong} == checks
    assert all(check.reason and check.remedy for check in wrong)


def test_a_machine_of_no_network_is_held_against_windrows_own_rules(sound: Looked) -> None:
    node = Node(name="gpu-0", transport="local")
    bare = sound.facts.model_copy(update={"gpus": ()})
    looked = replace(sound, node=node, facts=bare, probes={}, members={}, peers=())
    assert {check.network for check in preflight_checks(looked)} == {"windrow"}


def test_a_port_in_use_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = preflight.Asked(ports=(port,))
        measured = preflight.parse(preflight.answer(preflight.challenge(asked)))
    assert measured.busy_ports == (port,)
    assert ("127.0.0.1", port) in measured.listening


@pytest.mark.parametrize("name", ["../../etc", "a/../../b", "..", "/etc/passwd", ""])
def test_a_models_name_is_no_path(name: str) -> None:
    assert not measure(preflight.Asked(models=(name,))).models[0].whole


def checks_of(looked: Looked, name: str) -> list[NodeCheck]:
    return [check for check in preflight_checks(looked) if check.check == name]


def test_one_request_from_elsewhere_is_enough_to_refuse_what_the_network_accepts(
    sound: Looked,
) -> None:
    """The network asks once; here the second way out is seen."""
    looked = replace(sound, arrivals=(ARRIVED, Arrival("8.8.8.8", "token", "other"), ARRIVED))
    (check,) = checks_of(looked, "same_address_out")
    assert (check.network_verdict, check.windrow_verdict) == (True, False)
    assert check.reason == "of 3 requests came 1 from 8.8.8.8, not from 8.8.4.4"
    assert (check.measured, check.needed) == (2.0, 3.0)


def test_a_token_without_a_request_convinces_the_network_alone(sound: Looked) -> None:
    looked = replace(sound, arrivals=(Arrival(None, "token", "token"),))
    (check,) = checks_of(looked, "same_address_out")
    assert (check.network_verdict, check.windrow_verdict) == (True, False)
    assert "never came" in check.reason


def test_cards_joined_by_switches_need_their_manager(sound: Looked) -> None:
    assert checks_of(sound, "fabric_manager") == []
    (check,) = checks_of(with_card("h100_sxm", sound, fabric_manager=False), "fabric_manager")
    assert check.windrow_verdict is False


def test_a_model_that_does_not_fit_the_cards_is_named(sound: Looked) -> None:
    for args, fits in (((), True), (("--tensor-parallel-size", "4"), False)):
        models = (Model(name="a/b", args=args),)
        looked = replace(sound, node=sound.node.model_copy(update={"models": models}))
        (check,) = checks_of(looked, "model_layout")
        assert check.windrow_verdict is fits


def test_small_cards_make_no_group(sound: Looked) -> None:
    """Three cards of 16 GiB: two and one make no 38 GiB, and the third starts no group."""
    cards = tuple(gpu(index, vram_bytes=16 * GIB) for index in range(3))
    looked = replace(sound, facts=sound.facts.model_copy(update={"gpus": cards}))
    (check,) = checks_of(looked, "poc_groups")
    assert (check.network_verdict, check.windrow_verdict) == (False, False)


def test_a_node_without_cards_is_held_to_what_it_is_for(sound: Looked) -> None:
    node = sound.node.model_copy(update={"gpu": None, "gpu_count": 0})
    small = {"gpus": (), "cpu_threads": 4, "ram_bytes": 32 * GIB, "disk_bytes": 5 * 10**11}
    looked = replace(sound, node=node, facts=sound.facts.model_copy(update=small))
    wrong = {(check.check, check.network) for check in refused(looked)}
    assert {("cpu_cores", "chutes"), ("cpu_node_memory", "chutes")} <= wrong
    assert ("storage_size", "gonka") in wrong


def test_a_port_that_a_service_answers_at_is_not_missing(sound: Looked) -> None:
    """Declared ports are free or reachable."""
    looked = in_measured(busy_ports=(5000,))(sound)
    assert checks_of(looked, "ports_free")[0].windrow_verdict is True


@pytest.mark.parametrize("address", ["10.0.0.1", "100.64.0.1", "127.0.0.1", "224.0.0.1", "2001::1"])
def test_an_address_that_is_not_public_is_called_so(sound: Looked, address: str) -> None:
    node = sound.node.model_copy(update={"public_address": address})
    looked = replace(sound, node=node)
    (check,) = checks_of(looked, "public_address")
    assert check.windrow_verdict is False
    for check in checks_of(looked, "port_reachable"):
        assert check.windrow_verdict is None
        assert "it shows nothing of the internet" in check.reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"x": 1}',
        b'{"machine": {}, "reach": {}}',
        b'{"machine": {"ports": ["80"]}}',
        b'{"reach": {"seconds": 1e9}}',
        b'{"reach": {"key": "00"}}',
        b"x" * (2 << 20),
    ],
)
def test_a_request_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        preflight.answer(data)


@pytest.mark.parametrize(
    "change",
    [
        {"clock": -1},
        {"listening": [80]},
        {"listening": 5},
        {"snap_mount": []},
        {"routes": ["everywhere wg0"]},
        {"x": 1},
    ],
)
def test_measurements_of_another_form_are_refused(
    measured: preflight.Measured, change: dict[str, Any]
) -> None:
    fields = measured.model_dump(mode="json") | change
    with pytest.raises(preflight.BadMeasurement):
        preflight.parse(json.dumps(fields).encode())


def rows_of(looked: Looked, name: str) -> list[NodeCheck]:
    return [check for check in preflight_checks(looked) if check.check == name]


def test_a_clock_rate_that_is_not_measured_leaves_the_networks_verdict_open(sound: Looked) -> None:
    cards = (gpu(0), gpu(1, cuda_clock_khz=None))
    known, open_ = rows_of(in_facts(gpus=cards)(sound), "gpu_as_declared")
    assert (known.network_verdict, known.windrow_verdict, known.reason) == (True, True, "")
    assert (open_.network_verdict, open_.windrow_verdict) == (None, True)
    assert open_.reason == "not measured: clock rate"


def test_what_the_driver_does_not_tell_is_not_measured(sound: Looked) -> None:
    unread = {"memory": "NoPermission", "processes": "NoPermission", "power_limit": "NotSupported"}
    split = gpu(0, vram_bytes=None, vram_used_bytes=None, processes=None, mig=True, unread=unread)
    looked = in_facts(gpus=(split, gpu(1)))(sound)
    (told,) = rows_of(looked, "gpu_facts")
    assert (told.windrow_verdict, told.gpu) == (None, "GPU-0")
    assert told.reason == "not measured: memory, processes; this user may not ask for it"
    assert "usermod" in told.remedy
    for name in ("gpu_memory_free", "poc_groups"):
        (row,) = rows_of(looked, name)
        assert row.windrow_verdict is None
        assert "not measured" in row.reason
    assert [row.windrow_verdict for row in rows_of(looked, "gpu_alone")] == [None, True]
    assert [row.windrow_verdict for row in rows_of(looked, "gpu_not_split")] == [False, True]
    assert rows_of(looked, "gpu_as_declared")[0].windrow_verdict is None
    (ram,) = rows_of(looked, "ram_per_vram")[:1]
    assert ram.windrow_verdict is not None


def test_a_driver_that_is_not_loaded_has_its_own_remedy(sound: Looked) -> None:
    looked = in_facts(gpus=(), driver=None, cuda=None, driver_absent="DriverNotLoaded")(sound)
    (count,) = rows_of(looked, "gpu_count")
    assert "sudo modprobe nvidia" in count.remedy
    (count,) = rows_of(in_facts(gpus=(gpu(),))(sound), "gpu_count")
    assert "nvidia-smi -L" in count.remedy


def test_a_cuda_version_that_is_not_told(sound: Looked) -> None:
    (row,) = rows_of(in_facts(cuda=None)(sound), "cuda_version")
    assert (row.windrow_verdict, row.reason) == (None, "not measured")


@pytest.mark.parametrize(
    ("said", "health"),
    [
        (None, (None, None)),
        ("Enabled, 0\nDisabled, 3\n", (1, 3)),
        ("[N/A], [N/A]\n", (None, None)),
        ("No devices were found\n", (None, None)),
        ("Enabled, [Not Supported]\n", (1, None)),
    ],
)
def test_what_nvidia_smi_says_of_health(
    monkeypatch: pytest.MonkeyPatch, said: str | None, health: tuple[int | None, int | None]
) -> None:
    monkeypatch.setattr(preflight_measure, "_said", lambda *_: said)
    assert preflight_measure._card_health() == health
