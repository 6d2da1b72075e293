"""What a text that names a place may be: a local path, `~`, file://, s3://, or a model's name.

An option's annotation says what it takes, and `resolve_places` holds a job's options against that
before anything starts. Opens nothing.
"""

import dataclasses
import os
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from t2ipal.config import require

Config = TypeVar("Config")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
"""One slash is enough: what a shell or `pathlib` makes of s3://bucket is no folder `s3:`."""
FILE = re.compile(r"file:(?:///|//localhost/|/(?!/))(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Place:
    """What a text may name beside a local path, as `Annotated[str, Place()]`."""

    bucket: bool = True
    """s3:// too."""
    name: bool = False
    """The name of something that is known, too."""
    shared: bool = False
    """All machines of a cluster must reach it: a submitted job's must be s3:// or absolute."""
    keep_home: bool = False
    """`~` is left to who reads it, for runs keep the text."""


Uri = Annotated[str, Place()]
SharedUri = Annotated[str, Place(shared=True)]
LocalPath = Annotated[str, Place(bucket=False)]
NameOrUri = Annotated[str, Place(name=True)]
NameOrPath = Annotated[str, Place(bucket=False, name=True)]
ModelPlace = Annotated[str, Place(bucket=False, name=True, keep_home=True)]


def runs_as_submitted_job() -> bool:
    """Whether this process is the entry point of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def local_path(text: str) -> str:
    """The path of this machine that a text names, with `~` and file:// resolved.

    Raises:
        ValueError: it has another scheme, or a home folder that nobody knows.
    """
    if SCHEME.match(text):
        file = FILE.fullmatch(text)
        if file is None:
            raise ValueError(f"A store is a local path or s3://..., got {text!r}.")
        return "/" + os.fsdecode(unquote_to_bytes(file[1].encode("utf-8", "surrogateescape")))
    path, home = os.path.expanduser(text), text.split("/")[0]
    is_known = path != text and (home != "~" or os.environ.get("HOME") != "")
    require(
        is_known or not home.startswith("~"),
        f"No home folder is known for {home} in {text!r}. Write the whole path, or ./~... for a "
        "folder of that name.",
    )
    return path


def resolve_places(config: Config) -> Config:
    """The config with every place in it as the stages take it, at any depth.

    Raises:
        ValueError: a place that its option does not take.
    """
    changes = {}
    for name, read in _readers(type(config)).items():
        old = getattr(config, name)
        new = read(old, name)
        if new != old:
            changes[name] = new
    return dataclasses.replace(typing.cast(Any, config), **changes) if changes else config


@cache
def _readers(kind: type) -> dict[str, Callable[[Any, str], Any]]:
    """Field -> what gives its resolved value, for the fields that hold places."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}
    return {name: read for name, read in found.items() if read is not None}


def _reader(hint: Any) -> Callable[[Any, str], Any] | None:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        place = next((extra for extra in arguments[1:] if isinstance(extra, Place)), None)
        return _reader(arguments[0]) if place is None else lambda text, n: _resolve(text, place, n)
    if dataclasses.is_dataclass(hint):
        return lambda config, name: resolve_places(config)
    read = next(filter(None, map(_reader, arguments)), None)
    if read is None:
        return None
    if typing.get_origin(hint) is tuple:
        return lambda values, name: tuple([read(value, name) for value in values])
    return lambda value, name: None if value is None else read(value, name)


def _resolve(text: str, place: Place, name: str) -> str:
    if place.bucket and text.startswith("s3://"):
        return text
    if SCHEME.match(text) and not FILE.fullmatch(text):
        kinds = [*["a name"] * place.name, "a local path", *["s3://..."] * place.bucket]
        raise ValueError(f"{name} must be {' or '.join(kinds)}, got {text!r}.")
    path = text if place.keep_home and text.startswith("~") else local_path(text)
    require(
        not place.shared or not runs_as_submitted_job() or path.startswith("/"),
        f"{name} must be s3:// or an absolute path, got {text!r}: "
        "a submitted job runs in a temporary copy of the working directory.",
    )
    return path
