"""Where the page is served, as plain values."""

from dataclasses import dataclass

from t2ipal.config import check_fields


@dataclass(frozen=True)
class PageAddress:
    """Where the page is served; it needs no other server."""

    port: int = 0
    """Port to serve the page on; 0: any free one."""
    host: str = "127.0.0.1"
    """Name or number of this machine to listen on: 127.0.0.1 for this machine alone, 0.0.0.0 for
    all networks that it is in."""

    def __post_init__(self) -> None:
        check_fields(self)
