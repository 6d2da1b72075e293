"""What a cluster's state says about why work waits; asks no cluster itself."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from t2ipal.config import listed
from t2ipal.doctor.findings import Finding, not_looked_at, ok, wrong

ADVICE = {
    "InsufficientInstanceCapacity": "AWS has no such machine there now: name more instance types "
    "and zones in cluster.yaml, or wait.",
    **dict.fromkeys(
        ("VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded"),
        "Ask for a larger quota in Service Quotas of AWS.",
    ),
    "UnauthorizedOperation": "The head's instance profile lacks rights.",
    "InvalidAMIID": "The ImageId is of another region, or gone.",
    "SpotMaxPriceTooLow": "Take MaxPrice out of cluster.yaml.",
    "Unsupported": "This zone has no such machine: name other zones in cluster.yaml.",
}
"""Code of AWS -> what to do."""
WORDS = re.compile(r"Failed to launch \d+ nodes of type ([^\s:]+): (.+)")
"""In the log of Ray's autoscaler, which keeps the cloud's reason out of its status."""
MOST_SHOWN = 3
Resources = Mapping[str, float]


@dataclass(frozen=True)
class NodeType:
    """Machines that the autoscaler may start."""

    name: str
    resources: Resources
    most: int
    """Of them at once; -1: no limit."""


@dataclass(frozen=True)
class NodeSeen:
    """A machine that is in the cluster."""

    node_type: str
    node_id: str
    ip: str
    resources: Resources
    draining: bool = False
    """It will be taken away, and gets no new work."""


@dataclass(frozen=True)
class ClusterState:
    """What the head of a cluster knows, as plain values."""

    ray_version: str
    python_version: str
    nodes: tuple[NodeSeen, ...]
    starting: tuple[str, ...]
    """Node type of each machine that is being started."""
    failed: tuple[tuple[str, str], ...]
    """Node type and reason of each start that failed lately."""
    ended: tuple[str, ...]
    """Node type of each machine that was in the cluster and is gone."""
    demands: tuple[tuple[Resources, int], ...]
    """Resources that work waits for, and how often."""
    infeasible: tuple[tuple[Resources, int], ...]
    """Of these, what the autoscaler says that it cannot give."""
    has_autoscaler: bool
    node_types: tuple[NodeType, ...] | None
    """None: nobody says what the autoscaler may start."""
    log: str = ""
    """The end of the autoscaler's log, where it can be read."""
    error: str = ""
    """Of the autoscaler itself."""

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> "ClusterState":
        """From what `json` makes of its fields."""
        values: dict = dict(content)
        types = values["node_types"]
        return cls(
            **values
            | {
                "nodes": tuple(NodeSeen(**node) for node in values["nodes"]),
                "starting": tuple(values["starting"]),
                "failed": tuple((name, reason) for name, reason in values["failed"]),
                "ended": tuple(values["ended"]),
                **{
                    name: tuple((each, count) for each, count in values[name])
                    for name in ("demands", "infeasible")
                },
                "node_types": None if types is None else tuple(NodeType(**each) for each in types),
            }
        )


def check_versions(state: ClusterState, ray_version: str, python_version: str) -> Finding:
    """Whether both sides speak the same Ray and Python.

    Args:
        state: of the cluster.
        ray_version: here.
        python_version: here.
    """
    here, there = f"Ray {ray_version}", f"Ray {state.ray_version}"
    if state.python_version:  # a job server does not tell it
        here += f" and Python {python_version}"
        there += f" and Python {state.python_version}"
    minor = [version.split(".")[:2] for version in (python_version, state.python_version)]
    same_python = not state.python_version or minor[0] == minor[1]
    if state.ray_version != ray_version or not same_python:
        return wrong(
            "versions",
            f"{there} there, {here} here: they cannot work together. Install Ray "
            f"{state.ray_version} here, or make image and constraints.txt agree.",
        )
    return ok("versions", f"{there} on both sides." if there == here else f"{there}, {here} here.")


def check_nodes(state: ClusterState) -> Finding:
    """Which machines are there, start, or have gone."""
    parts = [f"there: {_counted(node.node_type for node in state.nodes) or 'none'}"]
    if state.starting:
        parts.append(f"starting: {_counted(state.starting)}")
    if draining := [node.node_type for node in state.nodes if node.draining]:
        parts.append(f"of these about to go: {_counted(draining)}")
    if state.ended:
        parts.append(f"gone (idle, taken away or failed): {_counted(state.ended)}")
    text = "; ".join(parts) + "."
    if state.error:
        return wrong("nodes", f"{text} The autoscaler says: {_line(state.error)}")
    if not state.nodes and not state.starting:
        return wrong("nodes", f"{text} Start the head.")
    return ok("nodes", text)


def check_launches(state: ClusterState) -> Iterable[Finding]:
    """Why machines could not be started, in the cloud's own words."""
    words = dict(WORDS.findall(state.log))  # of each type the last ones
    failed = Counter(name for name, _ in state.failed)
    if not failed:
        yield ok("launches", "none has failed lately.")
    reasons = dict(state.failed)
    for name, count in failed.items():
        reason = words.get(name) or reasons[name]
        advice = next((text for code, text in ADVICE.items() if code in reason), "")
        if name not in words and not advice:
            advice = "Ray's status has no reason: look for it in monitor.log on the head."
        yield wrong("launches", f"{name} failed {count} times: {_line(reason)} {advice}")


def check_demands(state: ClusterState) -> Iterable[Finding]:
    """What work waits for, and whether it can ever come."""
    if not state.demands:
        yield ok("demands", "no work waits for resources.")
        return
    here = [node.resources for node in state.nodes if not node.draining]
    busy = Counter([*(node.node_type for node in state.nodes), *state.starting])
    for asked, count in state.demands[:MOST_SHOWN]:
        text = f"{count} x {_resources(asked)}"
        fitting = [each for each in state.node_types or () if _fits(asked, each.resources)]
        room = [each.name for each in fitting if each.most < 0 or busy[each.name] < each.most]
        coming = [name for name in state.starting if name in {each.name for each in fitting}]
        if state.node_types is None and state.has_autoscaler and not _among(asked, state):
            coming = [*state.starting]
            room = ["a node type"]
        if coming:
            yield ok("demands", f"{text}: {coming[0]} is being started.")
        elif any(_fits(asked, each) for each in here):
            yield ok("demands", f"{text}: waits until a machine that is there has it free.")
        elif room:
            yield wrong(
                "demands",
                f"{text}: {room[0]} would do, and none is starting. Look again in a minute, then "
                "at the launches.",
            )
        elif fitting:
            names = [each.name for each in fitting]
            yield wrong("demands", f"{text}: max_workers of {listed(names, 3)} is reached.")
        else:
            yield wrong("demands", f"{text}: {_never(asked, state)}")
    if len(state.demands) > MOST_SHOWN:
        yield not_looked_at("demands", f"{len(state.demands) - MOST_SHOWN} more.")


def _among(asked: Resources, state: ClusterState) -> bool:
    return any(asked == each for each, _ in state.infeasible)


def _never(asked: Resources, state: ClusterState) -> str:
    """Why nothing will ever give it."""
    if state.node_types is None and state.has_autoscaler:
        return "the autoscaler cannot give that: no node type has it, or max_workers is reached."
    if state.node_types is None:
        return "no machine has that, and no autoscaler can start one."
    largest = {
        name: max((each.resources.get(name, 0.0) for each in state.node_types), default=0.0)
        for name in asked
    }
    alone = [f"{name} at most {largest[name]:g}" for name in asked if asked[name] > largest[name]]
    why = listed(alone, 3) if alone else "no type has all of it together"
    return f"no node type can ever give that ({why}). Ask for less a worker, or add a node type."


def _fits(asked: Resources, given: Resources) -> bool:
    return all(given.get(name, 0.0) >= amount for name, amount in asked.items())


def _resources(asked: Resources) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(asked.items())) or "nothing"


def _counted(names: Iterable[str]) -> str:
    counts: Sequence[tuple[str, int]] = sorted(Counter(names).items())
    return ", ".join(f"{count} {name}" for name, count in counts)


def _line(text: str) -> str:
    return " ".join(text.split())[:400]
