"""Where a job's input comes from and its output goes (§4.1)."""

import ipaddress
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Inline(_Model):
    """contents: a zip, base64."""

    volume_type: Literal["inline"] = "inline"
    contents: str
    relative_path: str | None = None


class ZipUrl(_Model):
    """contents: URL of a zip."""

    volume_type: Literal["zip_url"] = "zip_url"
    contents: str
    relative_path: str | None = None


class SingleFile(_Model):
    """A file at a URL."""

    volume_type: Literal["single_file"] = "single_file"
    url: str
    relative_path: str


class HuggingFace(_Model):
    """Files of a repository of Hugging Face."""

    volume_type: Literal["huggingface_volume"] = "huggingface_volume"
    repo_id: str
    repo_type: str | None = None
    revision: str | None = None
    relative_path: str | None = None
    allow_patterns: str | list[str] | None = None
    token: str | None = None


OneVolume = Annotated[
    Inline | ZipUrl | SingleFile | HuggingFace, Field(discriminator="volume_type")
]


class MultiVolume(_Model):
    """Several of the others."""

    volume_type: Literal["multi_volume"] = "multi_volume"
    volumes: list[OneVolume]


Volume = Annotated[
    Inline | ZipUrl | SingleFile | HuggingFace | MultiVolume, Field(discriminator="volume_type")
]


class ZipPost(_Model):
    """The output folder as a zip, posted as a form."""

    output_upload_type: Literal["zip_and_http_post"] = "zip_and_http_post"
    url: str
    form_fields: dict[str, str] | None = None


class ZipPut(_Model):
    """The output folder as a zip, put."""

    output_upload_type: Literal["zip_and_http_put"] = "zip_and_http_put"
    url: str


class FilePost(_Model):
    """A file of the output folder, posted as a form."""

    output_upload_type: Literal["single_file_post"] = "single_file_post"
    url: str
    form_fields: dict[str, str] | None = None
    relative_path: str
    signed_headers: dict[str, str] | None = None


class FilePut(_Model):
    """A file of the output folder, put."""

    output_upload_type: Literal["single_file_put"] = "single_file_put"
    url: str
    relative_path: str
    signed_headers: dict[str, str] | None = None


class MultiUpload(_Model):
    """Several files. system_output: where what the job printed goes."""

    output_upload_type: Literal["multi_upload"] = "multi_upload"
    uploads: list[Annotated[FilePost | FilePut, Field(discriminator="output_upload_type")]]
    system_output: Annotated[ZipPost | ZipPut, Field(discriminator="output_upload_type")] | None = (
        None
    )


Upload = Annotated[
    ZipPost | ZipPut | FilePost | FilePut | MultiUpload,
    Field(discriminator="output_upload_type"),
]

AnyVolume = Inline | ZipUrl | SingleFile | HuggingFace | MultiVolume
AnyUpload = ZipPost | ZipPut | FilePost | FilePut | MultiUpload

MAX_PARTS: Final = 64


def problem(of: AnyVolume | AnyUpload) -> str:
    """Why a volume or upload is not to be used, in words; empty if nothing is wrong with it.

    The network looks at neither host nor path (§4.1): a file URL, the metadata service of a cloud
    and a path out of the folder all pass there.
    """
    if isinstance(of, MultiVolume | MultiUpload):
        parts: list[AnyVolume | AnyUpload] = (
            list(of.volumes) if isinstance(of, MultiVolume) else list(of.uploads)
        )
        if isinstance(of, MultiUpload) and of.system_output is not None:
            parts.append(of.system_output)
        if len(parts) > MAX_PARTS:
            return f"{len(parts)} parts; at most {MAX_PARTS}"
        return next(filter(None, map(problem, parts)), "")
    path = getattr(of, "relative_path", None)
    if path is not None and _leaves(path):
        return f"path {path[:80]!r} leaves the job's folder"
    if isinstance(of, Inline | HuggingFace):
        return ""
    return _url_problem(of.contents if isinstance(of, ZipUrl) else of.url)


def _leaves(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return not parts or path.startswith("/") or ".." in parts or "\0" in path or "\\" in path


def _url_problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return f"{url[:80]!r} is no URL"
    if parts.scheme != "https" or not host:
        return f"{url[:80]!r} is no https URL"
    try:
        if not ipaddress.ip_address(host).is_global:
            return f"{host} is no public address"
    except ValueError:
        if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
            return f"{host} is no public host"
    return ""
