"""What a listing tells of an object, in a folder as in a bucket."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One object."""

    modified_s: float
    """When it was last written, in seconds since 1970."""
    size_bytes: int
    version: str
    """Another one whenever the object was written anew."""
