"""The page's own files put together: served piece by piece, or all in one file."""

import base64
import gzip
import hashlib
import html
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from t2ipal.dashboard.snapshot import Snapshots
from t2ipal.store import Store, join_key, store_and_key

FOLDER = Path(__file__).parent
SCRIPTS = (
    "format.js",
    "data.js",
    "charts.js",
    "address.js",
    "tiles.js",
    "progress.js",
    "parallel.js",
    "responses.js",
    "maps.js",
    "curves.js",
    "objectives.js",
    "configuration.js",
    "table.js",
    "overview.js",
    "connection.js",
    "page.js",
)
"""Modules of the page, each after those that it imports."""
PAGE = "page.html"
"""In a search's folder: its page in one file."""


@dataclass(frozen=True)
class Asset:
    """A file of the page as a browser gets it."""

    kind: str
    content: bytes
    packed: bytes
    """With gzip."""
    tag: str
    """Changes with the content."""


@cache
def assets() -> dict[str, Asset]:
    """Path -> what is there."""
    found = {
        "/": ("text/html; charset=utf-8", _text("page.html")),
        "/page.css": ("text/css; charset=utf-8", _text("page.css")),
        "/page.js": ("text/javascript; charset=utf-8", script()),
        "/echarts.min.js": ("text/javascript; charset=utf-8", _text("echarts.min.js")),
    }
    return {path: _asset(kind, text.encode()) for path, (kind, text) in found.items()}


def script() -> str:
    """All modules as one: their imports and exports are of one scope then."""
    pieces = (re.sub(r"^import [^;]*;\n", "", _text(name), flags=re.M) for name in SCRIPTS)
    joined = "\n".join(re.sub(r"^export ", "", piece, flags=re.M) for piece in pieces)
    return f"'use strict';\n{{\n{joined}\n}}\n"  # in a block no name can be given twice


def write_page(store: Store, folder: str) -> str:
    """Writes the page of a search as one file that needs no server; its key.

    Args:
        store: of the run, or of a search alone.
        folder: of the search in it; "" where the store is the search's own.

    Raises:
        ValueError: the folder holds no search, or what it holds is damaged.
    """
    run, name = (store, folder) if folder else store_and_key(store.uri, store.endpoint_url)
    key = join_key(folder, PAGE)
    store.write(key, whole_page(Snapshots(run, name).everything(name)).encode())
    return key


def whole_page(content: dict[str, Any]) -> str:
    """The page in one file, with all that it shows; nothing in it is ever fetched."""
    style, programs = _text("page.css"), [_text("echarts.min.js"), script()]
    # No element can end, and no comment begin, inside of it: JSON holds < in texts alone.
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    allowed = " ".join(map(_digest, programs))
    policy = f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data:"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
    inlined = [f'<script type="application/json" id="embedded">{data}</script>']
    inlined += [f"<script>{program}</script>" for program in programs]
    page = re.sub(r"^<(script|link rel=.preload).*\n", "", _text("page.html"), flags=re.M)
    page = page.replace("<!-- policy -->", meta).replace("<!-- data -->", "\n".join(inlined))
    return page.replace('<link rel="stylesheet" href="page.css">', f"<style>{style}</style>")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _asset(kind: str, content: bytes) -> Asset:
    packed = gzip.compress(content, 6, mtime=0)
    return Asset(kind, content, packed, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
