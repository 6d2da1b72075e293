"""Watching for the notice that a spot machine is taken away; what is done then is the caller's."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from t2ipal.cloud.metadata import Metadata

POLL_S = 5.0
"""As often as AWS advises; a notice comes two minutes before the end."""
MAX_PAUSE_S = 30.0
"""Between two looks while the service does not answer."""
NOTICE_S = 120.0
"""From a notice to the end, where the notice itself does not say when that is."""
NOTICE, RECOMMENDATION = "spot/instance-action", "events/recommendations/rebalance"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """That this machine will go, or is likely to."""

    action: str
    """`terminate`, `stop` or `hibernate`, or `rebalance`: only a risk, which may pass."""
    at: datetime | None
    """When; None: nobody knows."""

    def __str__(self) -> str:
        if self.action == "rebalance":
            return "EC2 recommends to rebalance: this spot machine is at an elevated risk"
        return f"EC2 will {self.action} this spot machine at {self.at:%H:%M:%S} UTC"


def read_notice(metadata: Metadata) -> Notice | None:
    """What stands in the metadata now; a notice before a recommendation.

    Raises:
        OSError: the service does not answer.
    """
    text = metadata.read(NOTICE)
    if text is not None:
        return _parsed(text)
    return None if metadata.read(RECOMMENDATION) is None else Notice("rebalance", None)


def _parsed(text: str) -> Notice:
    """A notice of which a part cannot be read is one all the same: the machine goes."""
    try:
        content = json.loads(text)
        action, at = str(content["action"]), datetime.fromisoformat(content["time"])
        return Notice(action, at if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, KeyError, TypeError):
        return Notice("terminate", datetime.now(UTC) + timedelta(seconds=NOTICE_S))


def watch(
    metadata: Metadata,
    on_notice: Callable[[Notice], None],
    is_over: Callable[[], bool],
    poll_s: float = POLL_S,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Notice]:
    """Looks every few seconds until `is_over`; gives the notices that were handed on.

    Args:
        metadata: of this machine.
        on_notice: called once for each action; where it raises OSError or RuntimeError, again at
            the next look.
        is_over: asked before each look.
        poll_s: between two looks.
        sleep: waits.
    """
    told: list[Notice] = []
    pause = poll_s
    while not is_over():
        try:
            notice = read_notice(metadata)
        except OSError as error:
            if pause == poll_s:
                logger.warning("%s does not answer (%s). Looking again.", metadata.url, error)
            pause = min(2 * pause, MAX_PAUSE_S)
        else:
            if pause > poll_s:
                logger.warning("%s answers again.", metadata.url)
            pause = poll_s
            if notice is not None and notice.action not in [each.action for each in told]:
                try:
                    on_notice(notice)
                    told.append(notice)
                except (OSError, RuntimeError) as error:
                    logger.error("%s, and it cannot be drained yet: %s", notice, error)
        sleep(pause)
    return told
