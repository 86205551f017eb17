"""Every node of a cluster must see what the work reads and writes: looked at before the work, not after hours of it.

A folder of one machine is what people try first. On another node the same path would be another folder: the parts that
are written there would be lost with it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fsspec.core import url_to_fs

from llmdet import __version__, files
from llmdet.errors import LlmdetError, MissingError, SettingError

# What Ray unpacks for a job, and deletes some time after it.
_COPY = f"{os.sep}runtime_resources{os.sep}working_dir_files{os.sep}"
_ANSWER_S = 120.0  # a node that has not answered then is busy or gone; Ray gives its work to another one
_seen: set[tuple[str, str]] = set()  # (node, address) that were looked at


@dataclass(frozen=True, slots=True)
class Look:
    """What one node found: `fault` is "package", "version", "write", "read" or nothing."""

    fault: str = ""
    subject: str = ""
    detail: str = ""


def check_place(address: str) -> None:
    """Raise SettingError for a place that does not outlive this process or its job."""
    if address.startswith("memory://"):
        raise SettingError(
            f"{address} lives in one process, and the work is done by others; give a folder or another URL"
        )
    if _COPY in address:
        raise SettingError(
            f"{address} is inside the copy of the working directory, which Ray deletes after the job; "
            "give an absolute path that all nodes share, or a URL such as s3://bucket/folder"
        )


def check_nodes(writes: Sequence[str], reads: Sequence[str] = ()) -> None:
    """Let each other node read a file that was just written below each of `writes`, and find each of `reads`.

    Costs one short task a node, once a session. Raises SettingError or MissingError with the name of a node.
    """
    nodes = _others()
    for address in writes:
        todo = [node for node in nodes if (node, address) not in _seen]
        if todo:
            _look_for_mark(address, todo, nodes)
    for address in reads:
        todo = [node for node in nodes if (node, address) not in _seen]
        _judge(_ask(todo, _reader(address)), nodes)
        _seen.update((node, address) for node in todo)


def _look_for_mark(address: str, todo: list[str], nodes: dict[str, str]) -> None:
    name, token = f".mark-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    mark = files.join(address, name)
    files.write_bytes(mark, token.encode())
    try:
        _judge(_ask(todo, _mark_reader(address, mark, token)), nodes)
    finally:
        fs, path = url_to_fs(mark)
        fs.rm_file(path)
    _seen.update((node, address) for node in todo)


def _others() -> dict[str, str]:
    """Id and name of each living node that can take work, without the driver's own."""
    import ray

    mine = ray.get_runtime_context().get_node_id()
    return {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != mine and node["Resources"].get("CPU")
    }


# The functions that travel are inner ones: Ray sends these as a whole, also to a node without this package.


def _mark_reader(address: str, mark: str, token: str) -> Callable[[], tuple[str, str, str]]:
    version = __version__

    def read_mark() -> tuple[str, str, str]:
        try:
            from llmdet import __version__, errors, files
        except ImportError as error:
            return "package", address, str(error)
        if __version__ != version:
            return "version", address, __version__
        try:
            same = files.read_bytes(mark) == token.encode()
        except errors.MissingError:
            return "write", address, "what was written there is not there"
        except Exception as error:  # of any file system there is: all mean that this node cannot read it
            return "write", address, f"{type(error).__name__}: {error}"
        return ("", "", "") if same else ("write", address, "another file has its name")

    return read_mark


def _reader(address: str) -> Callable[[], tuple[str, str, str]]:
    def look() -> tuple[str, str, str]:
        try:
            from llmdet import files

            return ("", "", "") if files.exists(address) else ("read", address, "not there")
        except Exception as error:  # as above
            return "read", address, f"{type(error).__name__}: {error}"

    return look


def _ask(nodes: Sequence[str], look: Callable[[], tuple[str, str, str]]) -> dict[str, Look]:
    """What each node found; nodes that die or do not answer are left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    sent = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(): node
        for node in nodes
    }
    done, _ = ray.wait(list(sent), num_returns=len(sent), timeout=_ANSWER_S) if sent else ([], [])
    found = {}
    for one in done:
        try:
            found[sent[one]] = Look(*ray.get(one))
        except ray.exceptions.RayError:  # the node has just gone
            continue
    return found


def _judge(found: dict[str, Look], names: dict[str, str]) -> None:
    bad = [(names[node], look) for node, look in found.items() if look.fault]
    if bad:
        name, look = bad[0]
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise _error(f"node {name}{more}", look)


def _error(node: str, look: Look) -> LlmdetError:
    if look.fault == "package":
        return SettingError(
            f"{node} has no llmdet-data ({look.detail}); install it in the environment of the cluster, or send the "
            "checkout with: ray job submit --working-dir . -- python -m cli ..."
        )
    if look.fault == "version":
        return SettingError(f"{node} has llmdet-data {look.detail}, this is {__version__}; install the same everywhere")
    kind = SettingError if look.fault == "write" else MissingError
    return kind(
        f"{node} does not see {look.subject} ({look.detail}); on a cluster it must be a folder that all nodes share, "
        "or a URL such as s3://bucket/folder"
    )
