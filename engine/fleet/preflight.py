"""What only the machine itself can see before it is rented out: asked for, and answered.

`preflight_measure` looks at the machine, `preflight_reach` at the network around it; neither
judges, `preflight_rules` holds their numbers against each network's rules.
"""

import ipaddress
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from windrow import WindrowError
from windrow.engine.fleet.frames import BadFrame, from_json, to_json
from windrow.engine.fleet.tasks import BadRequest

MAX_ANSWER: Final = 1 << 20
MOST: Final = 1000

Text = Annotated[str, Field(max_length=512)]
Port = Annotated[int, Field(ge=1, le=65535)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Count = Annotated[int, Field(ge=0, le=2**50)]


def _a_route(text: str) -> str:
    ipaddress.IPv4Network(text.partition(" ")[0], strict=False)
    return text


Route = Annotated[Text, AfterValidator(_a_route)]


class BadMeasurement(WindrowError):
    """A node's measurements have no sound form."""


class Strict(BaseModel):
    """A message: every field known, of its own type, and bounded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Asked(Strict):
    """What to measure. ports: to try to open; models: to look for in the cache, as `org/name`."""

    ports: Annotated[tuple[Port, ...], Field(max_length=MOST, strict=False)] = ()
    models: Annotated[tuple[Text, ...], Field(max_length=64, strict=False)] = ()


class Mount(Strict):
    """A file system: where, of what size, and how much is free."""

    path: Text
    device: Text
    bytes: Bytes
    free: Bytes


class Cached(Strict):
    """A model in the cache. whole: a snapshot is there and no file of it is still downloading."""

    name: Text
    bytes: Bytes
    whole: bool


class Measured(Strict):
    """What was measured. clock: unix seconds, when it began; seconds: how long all of it took.

    listening: address and port. routes: networks and their interface.

    None: this machine does not tell. tdx: it is a confidential guest. compose: docker knows it.
    container_gpus: docker has NVIDIA's runtime. persistent_gpus: cards in persistence mode.
    ecc_errors: uncorrected ones since the last reset. xid_errors: in the kernel's log.
    """

    clock: Annotated[float, Field(ge=0, le=1e12)]
    first_process: Text
    system_id: Text
    system_version: Text
    hostname: Text
    user_is_root: bool
    modules_loadable: bool | None
    tdx: bool
    snap_mount: Mount | None
    largest_mount: Mount | None
    cache_path: Text
    cache_writable: bool
    cache_free: Bytes
    models: Annotated[tuple[Cached, ...], Field(max_length=64, strict=False)]
    programs: Annotated[tuple[Text, ...], Field(max_length=32, strict=False)]
    compose: bool
    container_gpus: bool | None
    fabric_manager: bool
    persistent_gpus: Count | None
    ecc_errors: Count | None
    xid_errors: Count | None
    ip_forward: bool | None
    clock_synchronised: bool | None
    routes: Annotated[tuple[Route, ...], Field(max_length=MOST, strict=False)]
    listening: Annotated[tuple[tuple[Text, Port], ...], Field(max_length=MOST, strict=False)]
    busy_ports: Annotated[tuple[Port, ...], Field(max_length=MOST, strict=False)]
    seconds: Annotated[float, Field(ge=0, le=3600)]


def challenge(asked: Asked) -> bytes:
    """The request for what the machine is."""
    return to_json({"machine": asked.model_dump(mode="json")})


def answer(request: bytes) -> bytes:
    """Measure, on the machine: itself, or what it reaches. Raises BadRequest."""
    from windrow.engine.fleet import preflight_measure, preflight_reach

    try:
        fields = from_json(request, max_bytes=MAX_ANSWER)
        if fields.keys() == {"reach"}:
            asked = preflight_reach.AskedReach.model_validate(fields["reach"])
            return to_json(preflight_reach.reach(asked).model_dump(mode="json"))
        if fields.keys() != {"machine"}:
            raise BadRequest("a preflight request asks for `machine` or for `reach`")
        machine = Asked.model_validate(fields["machine"])
    except (BadFrame, ValidationError) as error:
        raise BadRequest(f"no preflight request: {str(error)[:300]}") from error
    return to_json(preflight_measure.measure(machine).model_dump(mode="json"))


def parse(data: bytes) -> Measured:
    """Measurements from a node. Raises BadMeasurement."""
    try:
        fields = from_json(data, max_bytes=MAX_ANSWER)
        for pair in fields.get("listening", []):
            if not isinstance(pair, list):
                raise BadMeasurement("listening ports come without their addresses")
        listening = [tuple(pair) for pair in fields.get("listening", [])]
        return Measured.model_validate(fields | {"listening": listening})
    except (BadFrame, ValidationError, TypeError) as error:
        raise BadMeasurement(f"measurements of another form: {str(error)[:300]}") from error
