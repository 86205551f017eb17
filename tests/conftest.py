"""Fixtures and the environment that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SAMPLES_VARIABLE = "LLMDET_SAMPLES"
OBJECT_STORE_BYTES = 200 * 1024 * 1024

# Before torch, Ray or a tokenizer is imported by any test: few threads, no spinning, no network, no chatter.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.pop("RAY_ADDRESS", None)


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for the fixture `samples`, so that `-m samples` cannot miss one."""
    for item in items:
        if "samples" in getattr(item, "fixturenames", ()):
            item.add_marker("samples")


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real annotation files and photos, which licences keep out of this repository."""
    folder = os.environ.get(SAMPLES_VARIABLE)
    if not folder:
        pytest.skip(f"{SAMPLES_VARIABLE} is not set: it names the folder of real annotation files and photos")
    path = Path(folder)
    assert path.is_dir(), f"{SAMPLES_VARIABLE} names {path}, which is not a folder"
    return path


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local Ray of four logical CPUs that lives as long as the test session."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
