"""Why does nothing happen? One line a check: ok, or what to do next.

    python jobs/doctor.py --output s3://BUCKET/runs/coco
    python jobs/doctor.py --address http://127.0.0.1:8265 --output s3://BUCKET/runs/coco
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \\
        python jobs/doctor.py --output s3://BUCKET/runs/coco

Looks at this machine, the cluster if there is one, the bucket and the quotas. As a submitted job it
sees most: the machines of the cluster from within, and the cloud's reasons for machines that do not
come. Ends with exit code 1 where something is wrong. Starts no machine; writes and deletes one
small object in the bucket. The last line of the output is a JSON summary.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import t2ipal
from t2ipal.commands.running import finish, parse
from t2ipal.doctor.account import check_quotas, machines_region
from t2ipal.doctor.findings import Finding, look, not_looked_at
from t2ipal.doctor.machine import (
    TORCH_LIMIT_S,
    check_disk,
    check_gpus,
    check_open_files,
    check_packages,
    check_shared_memory,
    read_pins,
)
from t2ipal.doctor.places import check_place
from t2ipal.places import LocalPath, Uri
from t2ipal.store import Store

CLUSTER_LIMIT_S = 100.0
"""For all that is asked there, each part of which has a limit of its own."""


@dataclass(frozen=True)
class Options:
    """Checks what a run needs."""

    address: str | None = None
    """Of the cluster: http://host:8265 (its dashboard), host:6379 (its head) or auto (on the head);
    None: RAY_ADDRESS, and without it no cluster."""
    output: Uri | None = None
    """Folder or s3://bucket/prefix in which runs are to live; None: no place is checked."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS; AWS_ENDPOINT_URL does the same."""
    cluster: LocalPath = "cluster.yaml"
    """What the cluster may start, for quotas and region."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    found: list[Finding] = []
    for findings in _checks(options):
        for finding in findings:
            print(finding, flush=True)
        found += findings
    wrong = sum(finding.state == "wrong" for finding in found)
    summary = finish({"ok": wrong == 0, "num_wrong": wrong, "findings": [vars(f) for f in found]})
    if wrong:
        sys.exit(1)
    return summary


def _checks(options: Options) -> Iterator[list[Finding]]:
    """The findings of one check after another."""
    pins, cluster_file = read_pins(), Path(options.cluster)
    yield look("packages", lambda: check_packages(pins, t2ipal.__version__))
    yield look("GPUs", check_gpus, TORCH_LIMIT_S + 5)
    yield look("shared memory", check_shared_memory)
    yield look("disk", check_disk)
    yield look("open files", check_open_files)
    address = options.address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        yield [
            not_looked_at("cluster", "no --address and no RAY_ADDRESS: jobs start their own Ray.")
        ]
    else:
        yield look("cluster", lambda: _cluster(address, pins), CLUSTER_LIMIT_S)
    yield look("quotas", lambda: check_quotas(cluster_file))
    output = options.output
    if output is None:
        yield [not_looked_at("bucket", "no --output.")]
    else:
        store = Store(output, options.endpoint_url)
        yield look("bucket", lambda: check_place(store, machines_region(cluster_file)))


def _cluster(address: str, pins: Mapping[str, str]) -> Iterable[Finding]:
    from t2ipal.engine.diagnosis import check_cluster

    return check_cluster(address, pins, t2ipal.__version__)
