"""Drains this machine's Ray node when EC2 takes the spot machine back; runs on each worker.

    t2ipal watch_spot &                             # after `ray start`, in the same container
    t2ipal watch_spot --rebalance drain &

EC2 says it two minutes ahead, in the machine's metadata. A drained node gets no new work: pools
hand out no further shard to it, and trainings write a checkpoint. Ends when the node ends.
The last line of the output is a JSON summary.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from t2ipal.cloud.metadata import Metadata
from t2ipal.cloud.spot import POLL_S, Notice, watch
from t2ipal.commands.running import finish, parse
from t2ipal.config import PositiveFloat, check_fields


@dataclass(frozen=True)
class Options:
    """Looks for a notice until the node ends."""

    node_id: str | None = None
    """Of the Ray node; None: the one of this machine."""
    rebalance: Literal["say", "drain"] = "say"
    """At EC2's recommendation to rebalance, which is only a risk and often passes: `say` it, or
    `drain` the node, which then gets no more work for as long as it lives."""
    metadata_url: str | None = None
    """Of the metadata service; None: AWS_EC2_METADATA_SERVICE_ENDPOINT, else EC2's own."""
    poll_s: PositiveFloat = POLL_S
    """Seconds between two looks."""

    def __post_init__(self) -> None:
        check_fields(self)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    from t2ipal.engine.draining import drain, local_node

    logging.basicConfig(format="%(asctime)s %(message)s")
    node = local_node(options.node_id)
    print(f"Watching for a spot notice of Ray node {node.node_id}.", flush=True)
    drained = False

    def on_notice(notice: Notice) -> None:
        nonlocal drained
        if notice.action == "rebalance" and options.rebalance == "say":
            print(f"{notice}.", flush=True)
            return
        drain(node, str(notice), notice.at)
        drained = True
        print(f"{notice}. Drained Ray node {node.node_id}.", flush=True)

    notices = watch(
        Metadata(options.metadata_url), on_notice, lambda: not node.is_alive(), options.poll_s
    )
    actions = [notice.action for notice in notices]
    return finish({"node_id": node.node_id, "notices": actions, "drained": drained})
