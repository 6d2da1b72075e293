"""How many machines AWS lets an account run, against those that a cluster may ask for."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 5.0
QUOTAS = {
    ("standard", False): ("L-1216C47A", "Running On-Demand Standard instances"),
    ("standard", True): ("L-34B43A08", "All Standard Spot Instance Requests"),
    ("g", False): ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("g", True): ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("p", False): ("L-417A185B", "Running On-Demand P instances"),
    ("p", True): ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    ("p5", True): ("L-C4BD4855", "All P5 Spot Instance Requests"),
}
"""(family, whether spot) -> code and name of the quota, which counts vCPUs."""
STANDARD = ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z")
"""Families of machines without accelerators."""
OWN_PROVIDER = "t2ipal.engine.capacity.AWSMachines"
"""Also of AWS, beside Ray's `aws`."""


@dataclass(frozen=True)
class MachineKind:
    """A node type of a cluster, as AWS counts it."""

    node_type: str
    instance_type: str
    spot: bool
    most: int
    """Machines of it at once."""
    head: bool = False
    """Whether it is the cluster's head, which is none of its workers."""

    @property
    def quota(self) -> tuple[str, str] | None:
        """Code and name of its quota; None: not known."""
        letters = re.match(r"[a-z]*", self.instance_type)
        family = letters[0] if letters else ""
        kind = "standard" if family in STANDARD else "g" if family in ("g", "gr", "vt") else family
        if self.instance_type.startswith("p5") and self.spot:
            kind = "p5"
        return QUOTAS.get((kind, self.spot))


@dataclass(frozen=True)
class QuotaUse:
    """A quota, and what a cluster may want of it."""

    name: str
    vcpus: float
    """That AWS allows at once."""
    smallest: int
    """vCPUs of the smallest machine that counts."""
    wanted: int
    """vCPUs, where as many machines run as the cluster may have, the largest first."""
    node_types: tuple[str, ...]

    @property
    def num_machines(self) -> int:
        """How many of the smallest machine there may be."""
        return math.floor(self.vcpus / self.smallest)


def machine_kinds(cluster: Mapping[str, Any]) -> list[MachineKind]:
    """What a cluster.yaml for AWS may start; empty for another provider.

    Raises:
        ValueError: it is no cluster.yaml.
    """
    try:
        provider = cluster["provider"]
        if provider["type"] != "aws" and provider.get("module") != OWN_PROVIDER:
            return []
        kinds = []
        for name, node_type in cluster["available_node_types"].items():
            config = node_type["node_config"]
            spot = config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
            head = name == cluster["head_node_type"]
            most = 1 if head else node_type.get("max_workers", node_type.get("min_workers", 0))
            kinds.append(MachineKind(name, config["InstanceType"], spot, most, head))
        return [kind for kind in kinds if kind.most > 0]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"This is no cluster.yaml of Ray: a part is missing, or of another kind ({error})."
        ) from error


def read_quotas(kinds: Iterable[MachineKind], max_workers: int, region: str) -> list[QuotaUse]:
    """Every quota of this account that the machines count for.

    Args:
        kinds: of machines.
        max_workers: machines of all kinds at once, but for the head.
        region: of AWS.

    Raises:
        PermissionError: no credentials, or without the rights.
        OSError: AWS does not answer.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    config = Config(
        region_name=region,
        connect_timeout=TIMEOUT_S,
        read_timeout=TIMEOUT_S,
        retries={"total_max_attempts": 2},
    )
    session = boto3.Session()  # the default one must not be used by two threads at once
    try:
        clients = (session.client(name, config=config) for name in ("service-quotas", "ec2"))
        return uses_of(kinds, max_workers, *clients)
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise PermissionError("there are no AWS credentials here.") from error
    except ClientError as error:
        reason = error.response.get("Error", {})
        raise PermissionError(
            f"AWS refused ({reason.get('Code')}): {reason.get('Message')} It takes the rights "
            "servicequotas:GetServiceQuota and ec2:DescribeInstanceTypes."
        ) from error
    except BotoCoreError as error:
        raise OSError(f"AWS does not answer: {error}") from error


def uses_of(
    kinds: Iterable[MachineKind], max_workers: int, quotas: Any, ec2: Any
) -> list[QuotaUse]:
    """As `read_quotas`.

    Args:
        kinds: of machines.
        max_workers: machines of all kinds at once, but for the head.
        quotas: client of AWS's service "service-quotas".
        ec2: client of AWS's service "ec2".
    """
    kinds = [kind for kind in kinds if kind.quota is not None]
    if not kinds:
        return []
    types = sorted({kind.instance_type for kind in kinds})
    reply = ec2.describe_instance_types(InstanceTypes=types)["InstanceTypes"]
    vcpus = {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in reply}
    found = []
    for code, name in dict.fromkeys(kind.quota for kind in kinds if kind.quota):
        ours = [kind for kind in kinds if kind.quota == (code, name)]
        smallest = min(vcpus[kind.instance_type] for kind in ours)
        value = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        machines = [
            (kind.head, vcpus[kind.instance_type]) for kind in ours for _ in range(kind.most)
        ]
        workers = sorted((size for head, size in machines if not head), reverse=True)
        wanted = sum(size for head, size in machines if head) + sum(workers[:max_workers])
        node_types = tuple(kind.node_type for kind in ours)
        found.append(QuotaUse(name, value, smallest, wanted, node_types))
    return found
