"""A cluster's dashboard over HTTP: what a laptop can see through `ray dashboard`, without Ray."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from t2ipal.doctor.cluster import ADVICE, WORDS
from t2ipal.doctor.findings import Finding, not_looked_at, ok, wrong

TIMEOUT_S = 5.0
TOKEN_FILE = "~/.ray/auth_token"
"""Where Ray looks for the token last."""
LOG_LINES = 1000
NONE = ("(no ", "(none)")
"""How a part of the status begins that is empty."""
SUBMIT = (
    "ray job submit --address {} --working-dir . -- python jobs/doctor.py looks there, where more "
    "can be seen."
)


def find_token() -> str | None:
    """The token that Ray would send; None: there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser(TOKEN_FILE)
    try:
        return Path(path).read_text().strip() or None
    except OSError:
        return None


class JobServer:
    """The dashboard of a cluster, which takes jobs."""

    def __init__(self, address: str):
        self.address, self._token = address.rstrip("/"), find_token()

    def read(self, path: str) -> str:
        """A page.

        Raises:
            PermissionError: the token is not the cluster's.
            OSError: nobody answers (ConnectionError), or with an error.
        """
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = urllib.request.Request(f"{self.address}/{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return reply.read().decode()
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise PermissionError(token_advice(self._token is not None)) from None
            raise OSError(f"{self.address}/{path} gives status {error.code}.") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(
                f"Nobody answers at {self.address} ({reason}). Is `ray dashboard cluster.yaml` "
                "running, and the head up (`ray up cluster.yaml`)?"
            ) from None


def token_advice(sent: bool) -> str:
    """What to do about a token.

    Args:
        sent: one was sent, and refused.
    """
    if sent:
        return (
            "The cluster refuses this token: it must be the one that `ray up` copied there "
            f"(RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, else {TOKEN_FILE})."
        )
    return (
        "The cluster wants a token, and none is here: set RAY_AUTH_MODE=token and put the "
        f"cluster's token into {TOKEN_FILE}, or RAY_AUTH_TOKEN."
    )


def check_job_server(address: str, ray_version: str) -> Iterable[Finding]:
    """Everything that a dashboard tells.

    Args:
        address: http://host:port.
        ray_version: here.
    """
    server = JobServer(address)
    try:
        version = json.loads(server.read("api/version"))["ray_version"]
    except PermissionError as error:
        yield ok("address", f"{address} answers.")
        yield wrong("token", str(error))
        return
    except (ValueError, KeyError, TypeError):
        yield wrong("address", f"{address} is no job server of Ray.")
        return
    yield ok("address", f"{address} answers.")
    yield ok("token", "accepted." if find_token() else "none here, and none is wanted.")
    if version == ray_version:
        yield ok("versions", f"Ray {version} on both sides; its Python is not told over HTTP.")
    else:
        yield wrong(
            "versions",
            f"Ray {version} there, Ray {ray_version} here: install Ray {version} here, or make "
            "image and constraints.txt agree.",
        )
    status = json.loads(server.read("api/cluster_status?format=1"))["data"]["clusterStatus"]
    yield from check_status(status, lambda: _monitor_log(server))
    yield not_looked_at("machines", SUBMIT.format(address))


def check_status(status: str, read_log) -> Iterable[Finding]:
    """What the autoscaler's status says, as `ray status` prints it.

    Args:
        status: the text.
        read_log: gives the end of the autoscaler's log; called where something failed.
    """
    active, idle, starting, failed, demands = (
        _part(status, head)
        for head in ("Active:", "Idle:", "Pending:", "Recent failures:", "Pending Demands:")
    )
    yield ok("nodes", f"there: {', '.join(active + idle) or 'none'}; starting: "
             f"{', '.join(starting) or 'none'}.")  # fmt: skip
    lost = [line for line in failed if "NodeTerminated" not in line]
    if not lost:
        yield ok("launches", "none has failed lately.")
    words = dict(WORDS.findall(read_log())) if lost else {}
    for line in lost:
        reason = words.get(line.partition(":")[0], "")
        advice = next((text for code, text in ADVICE.items() if code in reason), "")
        yield wrong("launches", f"{line}. {reason} {advice}".strip())
    if not demands:
        yield ok("demands", "no work waits for resources.")
    for line in demands:
        if starting:
            yield ok("demands", f"{line}; machines are being started.")
        else:
            yield wrong("demands", f"{line}, and no machine is starting.")


def _part(status: str, head: str) -> list[str]:
    """Lines below a heading; empty where it says that there is nothing."""
    _, found, rest = status.partition(f"\n{head}\n")
    lines = []
    for line in rest.splitlines() if found else ():
        if not line.startswith(" "):
            break
        if not line.strip().startswith(NONE):
            lines.append(line.strip())
    return lines


def _monitor_log(server: JobServer) -> str:
    try:
        nodes = json.loads(server.read("api/v0/nodes?detail=1"))["data"]["result"]["result"]
        head = next(node["node_id"] for node in nodes if node["is_head_node"])
        return server.read(
            f"api/v0/logs/file?node_id={head}&filename=monitor.log&lines={LOG_LINES}"
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return ""
