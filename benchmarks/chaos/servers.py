"""Real S3 servers on loopback for tests and measurements: OpenStack Swift and Ceph RGW.

    with swift_server(folder) as server:
        client = boto3.client("s3", endpoint_url=server.url, ...)

Each runs in a private folder on free ports, as processes of its own that end with the `with`
block, and so does all that was stored. Makes no bucket and knows no client.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LOOPBACK = "127.0.0.1"
READY_TIMEOUT_S = 120.0
"""For a server's start, and for one command while it starts: seconds as a rule."""

SWIFT_ROLES = ("proxy", "account", "container", "object")
SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = {suffix}

[storage-policy:0]
name = only
default = yes
"""
SWIFT_STORAGE_CONF = """\
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
log_level = WARNING
# A listing that is late after a busy second would be Swift's right, and a test's riddle.
container_update_timeout = 60
conn_timeout = 20
node_timeout = 60

[pipeline:main]
pipeline = {role}-server

[app:{role}-server]
use = egg:swift#{role}
"""
SWIFT_PROXY_CONF = """\
[DEFAULT]
swift_dir = {folder}
log_level = WARNING

[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats s3api tempauth bulk slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 20
node_timeout = 60
recoverable_node_timeout = 60

[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret_key} .admin

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""

CEPH_PROGRAMS = (
    "ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin",
)  # fmt: skip
CEPH_RIGHTS = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *"),
    "client.rgw": ("mon", "allow rw", "osd", "allow rwx"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
}
CEPH_CONF = """\
[global]
fsid = {fsid}
mon host = {mon_host}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon warn on pool no redundancy = false
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 2
# One monitor has nobody to wait for: as it comes, the start takes ten seconds or more.
paxos propose interval = 0.02
paxos min wait = 0.01
objecter tick interval = 0.5
run dir = {folder}
pid file =
# The path of a Unix socket has at most 107 characters.
admin socket =
log file = {folder}/ceph.log
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable usage log = false
rgw dynamic resharding = false
rgw thread pool size = 32
"""


@dataclass(frozen=True)
class ObjectServer:
    """An S3 server and who may use it."""

    url: str
    access_key: str
    secret_key: str


def swift_missing() -> str:
    """What `swift_server` lacks here, and how to get it; "" for nothing."""
    return "" if find_spec("swift") else "Swift is missing: pip install swift (Linux only)."


@contextlib.contextmanager
def swift_server(folder: Path) -> Iterator[ObjectServer]:
    """OpenStack Swift with its S3 interface: proxy, account, container and object server.

    The four share one process; there is one replica of everything.

    Args:
        folder: a private one is made in it, or elsewhere where its files cannot have the extended
            attributes that Swift needs.

    Raises:
        RuntimeError: Swift is not installed, does not start, or no folder has such attributes.
    """
    if missing := swift_missing():
        raise RuntimeError(missing)
    account, user, secret_key = "test", "tester", secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(_private_folder("swift-", _with_attributes(folder))))
        # Bound here and inherited, so that nobody else can take a port meanwhile.
        sockets = {role: stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=128))
                   for role in SWIFT_ROLES}  # fmt: skip
        (home / "swift.conf").write_text(SWIFT_CONF.format(suffix=secrets.token_hex(8)))
        for role in SWIFT_ROLES:
            template = SWIFT_PROXY_CONF if role == "proxy" else SWIFT_STORAGE_CONF
            text = template.format(
                folder=home, role=role, account=account, user=user, secret_key=secret_key
            )
            (home / f"{role}.conf").write_text(text)
        descriptors = {role: listener.fileno() for role, listener in sockets.items()}
        command = [sys.executable, __file__, str(home), json.dumps(descriptors)]
        process = stack.enter_context(
            _running(command, home / "swift.log", tuple(descriptors.values()))
        )
        port = sockets["proxy"].getsockname()[1]
        for listener in sockets.values():
            listener.close()  # the process has its own
        _wait(lambda: _answers(port, "/healthcheck"), process, home / "swift.log")
        yield ObjectServer(f"http://{LOOPBACK}:{port}", f"{account}:{user}", secret_key)


def ceph_missing() -> str:
    """What `ceph_server` lacks here, and how to get it; "" for nothing."""
    missing = [program for program in CEPH_PROGRAMS if not shutil.which(program)]
    if not missing:
        return ""
    return (
        f"Ceph's {', '.join(missing)} missing: "
        "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common."
    )


@contextlib.contextmanager
def ceph_server(folder: Path) -> Iterator[ObjectServer]:
    """Ceph's S3 gateway over one monitor and one OSD that keeps its objects in memory (4 GiB).

    Args:
        folder: a private one is made in it.

    Raises:
        RuntimeError: Ceph is not installed, or does not start.
    """
    if missing := ceph_missing():
        raise RuntimeError(missing)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(_private_folder("ceph-", folder)))
        conf, keyring, fsid = home / "ceph.conf", home / "keyring", str(uuid.uuid4())
        monitor_port, port = _free_ports(2)
        monitor = f"[v2:{LOOPBACK}:{monitor_port}/0]"
        conf.write_text(CEPH_CONF.format(folder=home, fsid=fsid, mon_host=monitor, port=port))
        for part in ("mon", "osd"):
            (home / part).mkdir()
        _make_keyring(keyring)

        def ceph(program: str, *arguments: str) -> None:
            _run([program, "-c", str(conf), *arguments])

        def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
            command = [program, "-c", str(conf), "-f", *arguments]
            return stack.enter_context(_running(command, home / "ceph.log"))

        monitors = str(home / "monmap")
        _run(
            ["monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor[:-3] + "]", monitors]
        )
        ceph("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", str(keyring))
        start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        ceph("ceph", "osd", "new", osd)
        ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-i", "0")
        gateway = start("radosgw", "-n", "client.rgw")
        _wait(lambda: _answers(port, "/"), gateway, home / "ceph.log")
        ceph(
            "radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "t2ipal",
            "--display-name", "t2ipal", "--access-key", access_key, "--secret-key", secret_key,
        )  # fmt: skip
        yield ObjectServer(f"http://{LOOPBACK}:{port}", access_key, secret_key)


def _make_keyring(path: Path) -> None:
    create = ["--create-keyring"]
    for name, rights in CEPH_RIGHTS.items():
        pairs = zip(rights[::2], rights[1::2], strict=True)
        caps = [word for part, right in pairs for word in ("--cap", part, right)]
        _run(["ceph-authtool", *create, str(path), "--gen-key", "-n", name, *caps])
        create = []


def _private_folder(prefix: str, folder: Path) -> tempfile.TemporaryDirectory[str]:
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True)


def _with_attributes(folder: Path) -> Path:
    """The folder, or another for temporary files where this one lacks extended attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    candidates = [folder, Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm")]
    for candidate in candidates:
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=candidate) as file:
            os.setxattr(file.fileno(), "user.swift.metadata", b"x" * 2000)
            return candidate
    raise RuntimeError(
        "Swift needs files with extended attributes of 2,000 bytes, and none of "
        f"{', '.join(map(str, candidates))} has them. Set TMPDIR to a folder on ext4, xfs or btrfs."
    )


def _free_ports(number: int) -> list[int]:
    """That many ports that nobody has just now."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(number)]
        return [listener.getsockname()[1] for listener in taken]


@contextlib.contextmanager
def _running(
    command: Sequence[str], log_path: Path, descriptors: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says what it has to say in a log, and is killed in the end."""
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=descriptors
        )
    try:
        yield process
    finally:
        process.kill()  # nothing of it is to be kept
        process.wait()


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=READY_TIMEOUT_S, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        raise RuntimeError(f"{command[0]} failed with exit code {done.returncode}: {said}")


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log_path: Path) -> None:
    """Returns as soon as the server is ready; RuntimeError with its last words where it is not."""
    end = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            state = "is not ready" if process.returncode is None else "ended"
            said = log_path.read_text(errors="replace").strip()[-2000:]
            raise RuntimeError(f"The server in {log_path.parent} {state}. It said: {said}")
        time.sleep(0.05)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _serve_swift(home: Path, descriptors: dict[str, int]) -> None:
    """What the process of `swift_server` does: rings first, then all four servers."""
    import eventlet.wsgi
    from swift.common import utils, wsgi
    from swift.common.http_protocol import SwiftHttpProtocol
    from swift.common.ring import RingBuilder

    utils.set_swift_dir(str(home))
    utils.disable_fallocate()
    utils.monkey_patch()
    # Eventlet's sockets: its patch has just taken the place of the standard library's.
    listeners = {role: socket.socket(fileno=number) for role, number in descriptors.items()}
    (home / "devices" / "only").mkdir(parents=True)
    for role in SWIFT_ROLES[1:]:
        builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
        device = {"region": 1, "zone": 1, "weight": 1, "device": "only", "ip": LOOPBACK}
        builder.add_dev({**device, "port": listeners[role].getsockname()[1]})
        builder.rebalance()
        builder.get_ring().save(str(home / f"{role}.ring.gz"))
    utils.get_logger({}, "swift", log_to_console=True)  # and with it all loggers after it
    servers = []
    for role, listener in listeners.items():
        app = wsgi.loadapp(str(home / f"{role}.conf"), {"log_name": role})
        # As Swift's own `run_server`, which would give each server a hub of its own.
        servers.append(
            eventlet.spawn(
                eventlet.wsgi.server, listener, app, utils.NullLogger(),
                protocol=SwiftHttpProtocol, capitalize_response_headers=False,
            )
        )  # fmt: skip
    for server in servers:
        server.wait()


if __name__ == "__main__":
    _serve_swift(Path(sys.argv[1]), json.loads(sys.argv[2]))
