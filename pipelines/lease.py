"""One driver at a time writes to a ledger (or to one shard of it), and to a table.

Every holder creates `leases/<epoch>.json` below what it writes to, exclusively, with the next free epoch: owner, host,
pid, shard, heartbeat. From then on nobody else writes to that file, so a holder that was taken for dead and wakes up
cannot take the lease back: it finds a later epoch on its shard and stops. A dead process of the same host loses its
lease at once, a silent one elsewhere after 60 seconds; a live one refuses a second driver by name.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import posixpath
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache

import orjson
import psutil
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import BusyError, FormatError, MissingError

HEARTBEAT_S = 10.0
STALE_S = 60.0
FOLDER = "leases"

Shard = tuple[int, int]  # i of n


@dataclass(frozen=True, slots=True)
class Lease:
    """Who writes. `epoch` grows with every holder of any shard, and is in the names of the files that it writes."""

    owner: str
    host: str
    machine: str  # which processes share a table of pids: two containers may have the same host name
    pid: int  # 0 once given back
    started: float  # of the process: a pid is used again, a pid with its start time is not
    epoch: int
    shard: Shard
    heartbeat: float

    def alive(self) -> bool:
        """False once the holder is known to be gone."""
        if not self.pid:
            return False
        if (self.host, self.machine) == (socket.gethostname(), _machine()):
            try:
                return abs(psutil.Process(self.pid).create_time() - self.started) < 2
            except psutil.NoSuchProcess:
                return False
        return time.time() - self.heartbeat < STALE_S

    def overlaps(self, shard: Shard) -> bool:
        """Whether some unit of work belongs to both: unit k belongs to shard i of n when k mod n is i."""
        common = math.gcd(self.shard[1], shard[1])
        return self.shard[0] % common == shard[0] % common


@dataclass(frozen=True, slots=True)
class Held:
    """A lease in our hands; `lost` is set when another driver has taken it over."""

    url: str
    lease: Lease
    lost: threading.Event

    @property
    def epoch(self) -> int:
        return self.lease.epoch

    def check(self) -> None:
        """Raise BusyError once another driver has taken the lease over."""
        if self.lost.is_set():
            raise BusyError(
                f"this process was silent for more than {STALE_S:g} s, and another driver has taken over {self.url}; "
                "what was committed stays. Wait for the other one, or stop it and run the same command again"
            )


@contextlib.contextmanager
def hold(url: str, shard: Shard = (0, 1), first_epoch: int = 0) -> Iterator[Held]:
    """Hold the lease of a folder's shard for the time of a block. Raises BusyError with the name of the holder."""
    held = Held(url, _take(url, shard, first_epoch), threading.Event())
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(held, stop), daemon=True)
    beat.start()
    try:
        yield held
    finally:
        stop.set()
        beat.join()
        # The file stays: the next holder must know the epoch.
        _write(url, replace(held.lease, pid=0, heartbeat=0.0))


def _take(url: str, shard: Shard, first_epoch: int) -> Lease:
    for _ in range(10):
        there = leases(url)
        for held in there.values():
            if held is not None and held.overlaps(shard) and held.alive():
                raise BusyError(
                    f"{held.owner} on {held.host} (pid {held.pid}) is writing to {url}; "
                    "wait for it, stop it, or run another part with --shard i/n"
                )
        lease = _mine(max([first_epoch - 1, *there]) + 1, shard)
        # Whoever claims an epoch has seen every claim before it: of two that race, one fails here and looks again. One
        # that was held up between the claim and its first byte was taken for dead, and looks again too.
        if _create(url, lease) and not _superseded(url, lease):
            _sweep(url, there)
            return lease
        time.sleep(0.05)
    raise BusyError(f"several drivers fight for {url}; start one of them again")


def _mine(epoch: int, shard: Shard) -> Lease:
    process, host, now = psutil.Process(), socket.gethostname(), time.time()
    return Lease(getpass.getuser(), host, _machine(), process.pid, process.create_time(), epoch, shard, now)


@cache
def _machine() -> str:
    """Boot and pid namespace where the system tells them."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}|{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def leases(url: str) -> dict[int, Lease | None]:
    """Every lease of a folder by epoch; None for a file whose writer died before its first byte."""
    fs, path = url_to_fs(files.join(url, FOLDER))
    if not fs.exists(path):
        return {}
    names = [posixpath.basename(entry) for entry in fs.ls(path, detail=False, refresh=True)]
    epochs = sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())
    return {epoch: _read(_path(url, epoch)) for epoch in epochs}


def _path(url: str, epoch: int) -> str:
    return files.join(url, FOLDER, f"{epoch:05d}.json")


def _create(url: str, lease: Lease) -> bool:
    """Create the file of a lease; False when another driver was first."""
    fs, path = url_to_fs(_path(url, lease.epoch))
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    try:
        with fs.open(path, "xb") as file:
            file.write(orjson.dumps(asdict(lease)))
    except FileExistsError:
        return False
    return True


def _sweep(url: str, there: dict[int, Lease | None]) -> None:
    """Remove the files of holders that are gone; ours, which is later, keeps the count of epochs."""
    for epoch, lease in there.items():
        if lease is None or not lease.alive():
            fs, path = url_to_fs(_path(url, epoch))
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(path)


def _read(path: str) -> Lease | None:
    for _ in range(5):
        try:
            value = files.read_json(path)
            return Lease(**{**value, "shard": tuple(value["shard"])})
        except MissingError:
            return None  # swept meanwhile
        except (FormatError, TypeError, KeyError):
            time.sleep(0.05)  # created, and about to be written
    return None


def _write(url: str, lease: Lease) -> None:
    files.write_bytes(_path(url, lease.epoch), orjson.dumps(asdict(lease)))


def _beat(held: Held, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        # A store that fails for one beat is no reason to stop: there are several beats before the lease is stale.
        with contextlib.suppress(OSError):
            if _superseded(held.url, held.lease):
                held.lost.set()
                return
            _write(held.url, replace(held.lease, heartbeat=time.time()))


def _superseded(url: str, mine: Lease) -> bool:
    later = (lease for epoch, lease in leases(url).items() if epoch > mine.epoch and lease is not None)
    return any(lease.overlaps(mine.shard) for lease in later)
