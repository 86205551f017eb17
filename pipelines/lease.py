"""One driver at a time writes to a ledger (or to one shard of it).

The lease is a small file: owner, host, pid, epoch, heartbeat. It is created exclusively. A dead process of the same
host loses it at once, a silent one elsewhere after 60 seconds; a live one refuses a second driver by name.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import orjson
import psutil
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import BusyError, FormatError, MissingError

HEARTBEAT_S = 10.0
STALE_S = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """Who writes. `epoch` grows with every holder, and is in the names of the files that it writes."""

    owner: str
    host: str
    pid: int
    started: float  # of the process: a pid is used again, a pid with its start time is not
    epoch: int
    heartbeat: float

    def alive(self) -> bool:
        """False once the holder is known to be gone."""
        if self.host == socket.gethostname():
            try:
                return abs(psutil.Process(self.pid).create_time() - self.started) < 2
            except psutil.NoSuchProcess:
                return False
        return time.time() - self.heartbeat < STALE_S


@contextlib.contextmanager
def hold(url: str, shard: tuple[int, int] = (0, 1)) -> Iterator[Lease]:
    """Hold the lease of a ledger's shard for the time of a block. Raises BusyError with the name of the holder."""
    path = files.join(url, f"lease-{shard[0]}-of-{shard[1]}.json")
    lease = _take(path)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, lease, stop), daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        stop.set()
        beat.join()
        # The file stays with a heartbeat of 0: the next holder must know the epoch.
        _write(path, Lease(**{**asdict(lease), "pid": 0, "heartbeat": 0.0}))


def _take(path: str) -> Lease:
    for _ in range(5):
        held = _read(path)
        if held is not None and held.pid and held.alive():
            raise BusyError(
                f"{held.owner} on {held.host} (pid {held.pid}) is writing to {os.path.dirname(path)}; "
                "wait for it, stop it, or run another part with --shard i/n"
            )
        lease = _mine(held.epoch + 1 if held else 0)
        if _claim(path, lease):
            return lease
    raise BusyError(f"several drivers fight for {path}; start one of them again")


def _mine(epoch: int) -> Lease:
    process = psutil.Process()
    return Lease(getpass.getuser(), socket.gethostname(), process.pid, process.create_time(), epoch, time.time())


def _claim(path: str, lease: Lease) -> bool:
    """Create `<lease>.<epoch>` exclusively, then point the lease at us; False when another one was first."""
    fs, local = url_to_fs(f"{path}.{lease.epoch}")
    fs.makedirs(os.path.dirname(local), exist_ok=True)
    try:
        with fs.open(local, "xb") as file:
            file.write(orjson.dumps(asdict(lease)))
    except FileExistsError:
        # A claim whose owner died before it wrote the lease itself: its epoch is burnt, take the next one.
        return _adopt_burnt(path, lease)
    _write(path, lease)
    return True


def _adopt_burnt(path: str, lease: Lease) -> bool:
    claimed = _read(f"{path}.{lease.epoch}")
    if claimed is None or not claimed.alive():
        _write(path, Lease(**{**asdict(lease), "pid": 0, "heartbeat": 0.0}))
    else:
        time.sleep(0.2)  # a live one is about to write the lease
    return False


def _read(path: str) -> Lease | None:
    try:
        return Lease(**files.read_json(path))
    except (MissingError, FormatError, TypeError):
        return None


def _write(path: str, lease: Lease) -> None:
    files.write_bytes(path, orjson.dumps(asdict(lease)))


def _beat(path: str, lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        _write(path, Lease(**{**asdict(lease), "heartbeat": time.time()}))
