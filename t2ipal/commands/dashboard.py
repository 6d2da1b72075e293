"""A live page about a run and its searches, read from its store: while they go on, or after.

    python jobs/dashboard.py --run runs/demo
    python jobs/dashboard.py --run s3://BUCKET/runs/coco --port 8080 --open

Prints the page's address and serves it until Ctrl-C. It answers this machine alone; to see it from
another one, forward the port (`ssh -L 8080:localhost:8080 MACHINE`), or take `--host 0.0.0.0`,
which puts a token into the address. Changes nothing in the run. With `--write` the page of each
search is written beside its trials instead, as one file that needs no server.
"""

import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse
from t2ipal.dashboard.config import PageAddress
from t2ipal.places import SharedUri
from t2ipal.store import Store, store_and_key


@dataclass(frozen=True)
class Options:
    """Serves the page of a run."""

    run: SharedUri
    """Folder of the run, or of one search: a local path, or s3://bucket/prefix."""
    open: bool = False
    """Opens the page in a browser."""
    write: bool = False
    """Writes the page of each search as one file, page.html, and ends."""
    price_per_gpu_hour: float | None = None
    """Price of one GPU for an hour, in any currency, for the cost of the images; None: none is
    shown. It is the cost of making images alone, as jobs/status.py shows it."""
    gpus_per_worker: float = 1.0
    """GPUs of each worker, as jobs/synthesize.py had them, for the cost; a share of one allowed."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    address: Annotated[PageAddress, FLAT] = field(default_factory=PageAddress)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    from t2ipal.dashboard.page import write_page
    from t2ipal.dashboard.server import serve
    from t2ipal.search.results import SETTINGS, find_searches

    store, only = Store(options.run, options.endpoint_url), None
    if store.exists(SETTINGS):  # the folder of a search
        store, only = store_and_key(store.uri, store.endpoint_url)
    searches = find_searches(store) if only is None else [only]
    if not searches and not store.list("", recursive=False):
        raise FileNotFoundError(
            f"Nothing is in {store.uri}. Give the folder of a run, as jobs/synthesize.py got it."
        )
    if options.write:
        if not searches:
            raise FileNotFoundError(f"No search in {store.uri}. Run jobs/tune.py first.")
        pages = [f"{store.uri}/{write_page(store, name)}" for name in searches]
        return finish({"run": store.uri, "pages": pages})
    with serve(
        store,
        options.address.port,
        options.address.host,
        only,
        price_per_gpu_hour=options.price_per_gpu_hour,
        gpus_per_worker=options.gpus_per_worker,
    ) as address:
        print(f"The page of {store.uri}: {address}  (Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(address)
        threading.Event().wait()
    return finish({"run": store.uri, "address": address})
