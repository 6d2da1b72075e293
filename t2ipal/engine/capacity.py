"""Machines of another type, where the cloud has none of the type that Ray asked for.

Ray's autoscaler takes the type of the highest priority that did not fail of late. As a failure it
counts only a machine that came and never joined. Of a launch that the cloud refuses, for want of
capacity or quota, it takes no note, and asks for the same type again without end. Here it does.
The autoscaler loads its provider of machines from here, as `cluster.yaml` says.
"""

import functools
import time
from collections import deque
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2 import autoscaler
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
    CloudResourceMonitor,
)


class RefusalsCount(NodeProvider):
    """Goes before a provider of machines: a type that it refuses comes last for ten minutes.

    RAY_AUTOSCALER_AVAILABILITY_RECOVERY_S of the head sets another time.
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str):
        super().__init__(provider_config, cluster_name)
        self.refused: deque[tuple[str, float]] = deque()
        # The autoscaler makes its monitor by this name, after its provider.
        autoscaler.CloudResourceMonitor = functools.partial(_Monitor, self.refused)

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> dict[str, Any] | None:
        """As Ray's; runs in a thread of its own."""
        try:
            return super().create_node_with_resources_and_labels(
                node_config, tags, count, resources, labels
            )
        except Exception:
            self.refused.append((tags[TAG_RAY_USER_NODE_TYPE], time.time()))
            raise


class _Monitor(CloudResourceMonitor):
    """Ray's memory of the types that failed, and of those that the cloud refused."""

    def __init__(self, refused: deque[tuple[str, float]]):
        super().__init__()
        self._refused = refused

    def get_resource_availabilities(self) -> dict[str, float]:
        self._take_note()
        return super().get_resource_availabilities()

    def get_recoverable_resource_availabilities(self) -> dict[str, float]:
        self._take_note()
        return super().get_recoverable_resource_availabilities()

    def _take_note(self) -> None:
        while self._refused:
            node_type, when = self._refused.popleft()
            self._last_unavailable_timestamp[node_type] = when


class AWSMachines(RefusalsCount, AWSNodeProvider):
    """Ray's provider of EC2 instances, whose refusals count."""
