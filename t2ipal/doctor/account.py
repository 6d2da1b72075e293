"""Whether the cloud's account may have what cluster.yaml asks for, and where the machines are."""

import os
from collections.abc import Iterable
from pathlib import Path

from t2ipal.cloud.metadata import DISABLED_VARIABLE, Metadata
from t2ipal.cloud.quotas import machine_kinds, read_quotas
from t2ipal.config import read_yaml
from t2ipal.doctor.findings import Finding, not_looked_at, ok, wrong


def machines_region(cluster_file: Path) -> str | None:
    """Region of AWS in which the machines are: as the file says, else as this machine knows.

    Args:
        cluster_file: a cluster.yaml; it need not be there.
    """
    if cluster_file.is_file():
        provider = (read_yaml(cluster_file) or {}).get("provider") or {}
        if provider.get("region"):
            return provider["region"]
    if os.environ.get(DISABLED_VARIABLE, "").lower() != "true":
        try:
            return Metadata().read("placement/region")
        except OSError:
            pass  # no machine of EC2
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def check_quotas(cluster_file: Path) -> Iterable[Finding]:
    """Whether the quotas allow the machines of a cluster.yaml."""
    if not cluster_file.is_file():
        yield not_looked_at("quotas", f"there is no {cluster_file} that says what is asked for.")
        return
    cluster = read_yaml(cluster_file)
    kinds = machine_kinds(cluster)
    if not kinds:
        yield not_looked_at("quotas", f"the provider of {cluster_file} is not AWS.")
        return
    try:
        max_workers = cluster.get("max_workers", 2)  # Ray's default
        uses = read_quotas(kinds, max_workers, cluster["provider"]["region"])
    except OSError as error:
        yield not_looked_at("quotas", str(error))
        return
    for use in uses:
        has = f"{use.name!r} is {use.vcpus:g} vCPUs"
        for_types = ", ".join(use.node_types)
        if use.num_machines < 1:
            yield wrong(
                "quotas",
                f"{has}, and a machine of {for_types} has {use.smallest}: none can start. Ask for "
                f"{use.wanted} in Service Quotas of AWS.",
            )
        elif use.vcpus < use.wanted:
            yield ok(
                "quotas",
                f"{has}: {for_types} can have {use.num_machines} of the smallest machine, for all "
                f"ask for {use.wanted}.",
            )
        else:
            yield ok("quotas", f"{has}, enough for all of {for_types} ({use.wanted}).")
