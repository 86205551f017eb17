"""Ray: a local one is started on demand and stopped cleanly; an existing cluster is used when RAY_ADDRESS says so."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.nodes import check_nodes, check_place

# A quickstart must fit in 4 GB: blocks here are names of parts and small tables, never decoded images.
_OBJECT_STORE_BYTES = 512 * 2**20


@contextlib.contextmanager
def cluster(*writes: str, reads: Sequence[str] = ()) -> Iterator[None]:
    """Connect to Ray for the time of a block.

    Blocks nest: only the outermost one starts and stops. RAY_ADDRESS (also set inside `ray job submit`) names a running
    cluster; without it a local Ray is started with one logical CPU per core. `writes` and `reads` are the addresses
    that every node must see (`pipelines.nodes`). Raises SettingError, MissingError where one does not.
    """
    for address in writes:
        check_place(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        check_nodes(writes, reads)
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray's C++ side prints errors that are none (every actor pool warns of its own arguments).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Threads of torch that wait shall sleep: spinning ones slow down the neighbours on a full machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    with _silent(), _same_sigterm():
        _start()
    try:
        for name in ("ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)
        check_nodes(writes, reads)
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _same_sigterm() -> Iterator[None]:
    """`ray.init` answers SIGTERM in its own way; an answer that was there before is put back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _start() -> None:
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 2),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Ray's C++ side greets on file descriptor 2, past every logger; what fails raises anyway."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def ray_data() -> Any:
    """The module ray.data, whose own progress bars and logs make way for ours.

    Its import takes a second, so stages that do without it do not pay for it.
    """
    import ray.data

    # Ray Data has no other way to bound retries yet.
    warnings.filterwarnings("ignore", message=r"`ray_remote_args` is deprecated")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it prints pages about what it raises anyway
    return ray.data


def workers() -> int:
    """How many single-CPU tasks the cluster can run at once."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
