"""The Kubernetes manifests follow published schemas, agree with the scripts and the image, and survive preemption."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from stand_ins import SCRIPTS

from vdvae_lr import __version__
from vdvae_lr.files.bundled import CHECKOUT_ROOT

SCHEMAS = Path(__file__).parent / "schemas"
KINDS = {"mpijob": "MPIJob", "pytorchjob": "PyTorchJob"}
IN_IMAGE = "/opt/vdvae_lr/scripts/cluster/"


def schema_of(reference: str) -> Draft202012Validator:
    contents = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(content)) for name, content in contents.items()
    )
    return Draft202012Validator({"$ref": reference}, registry=registry)


def documents(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap of variables, and the job."""
    variables, job = yaml.safe_load_all((SCRIPTS / "kubernetes" / f"{name}.yaml").read_text())
    return variables, job


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pod of each kind of replica."""
    (replicas,) = (value for key, value in job["spec"].items() if key.endswith("ReplicaSpecs"))
    return {kind: replica["template"]["spec"] for kind, replica in replicas.items()}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return dict(only)


PODS = [(name, kind) for name in KINDS for kind in pods(documents(name)[1])]


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_manifest_follows_the_schemas(name: str, kind: str) -> None:
    variables, job = documents(name)
    assert [error.message for error in schema_of(f"kubeflow.json#/$defs/{kind}").iter_errors(job)] == []
    config_map = schema_of("kubernetes.json#/$defs/io.k8s.api.core.v1.ConfigMap")
    assert [error.message for error in config_map.iter_errors(variables)] == []


@pytest.mark.parametrize(
    ("place", "misspelt"),
    [
        (["spec"], "slotPerWorker"),
        (["spec", "runPolicy"], "backofLimit"),
        (["spec", "mpiReplicaSpecs", "Worker", "template", "spec"], "volume"),
        (["spec", "mpiReplicaSpecs", "Worker", "template", "spec", "containers", 0], "mounts"),
    ],
)
def test_schemas_refuse_a_misspelt_field(place: list[str | int], misspelt: str) -> None:
    job: Any = copy.deepcopy(documents("mpijob")[1])
    part = job
    for step in place:
        part = part[step]
    part[misspelt] = 1
    (error,) = schema_of("kubeflow.json#/$defs/MPIJob").iter_errors(job)
    assert misspelt in error.message


def test_manifests_have_the_same_variables_and_the_scripts_read_them() -> None:
    (first, _), (second, _) = (documents(name) for name in KINDS)
    assert first["data"] == second["data"]
    for script in ("mpiexec.sh", "kubernetes/processes.sh", "slurm.sh"):
        text = (SCRIPTS / script).read_text()
        assert [name for name in first["data"] if f"{name}=${{{name}-" not in text] == [], script


@pytest.mark.parametrize(("name", "kind"), PODS)
def test_pod_is_not_root_and_has_time_to_save(name: str, kind: str) -> None:
    pod = pods(documents(name)[1])[kind]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container(pod)["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert pod["terminationGracePeriodSeconds"] >= 300


@pytest.mark.parametrize(("name", "kind"), PODS)
def test_pod_has_the_shared_volume_and_shared_memory(name: str, kind: str) -> None:
    variables, job = documents(name)
    pod = pods(job)[kind]
    places = {mount["name"]: mount["mountPath"] for mount in container(pod)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert places.keys() == volumes.keys()
    assert places["shm"] == "/dev/shm"
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    shared = places["shared"] + "/"
    assert all(variables["data"][name].startswith(shared) for name in ("RUNS", "DATA", "HF_HOME"))


@pytest.mark.parametrize(("name", "kind"), PODS)
def test_pod_starts_what_is_in_the_image(name: str, kind: str) -> None:
    only = container(pods(documents(name)[1])[kind])
    hooks = [hook["exec"]["command"][0] for hook in only.get("lifecycle", {}).values()]
    named = [word for word in (*only["command"], *hooks) if word.startswith(IN_IMAGE)]
    assert named
    for word in named:
        path = SCRIPTS / word.removeprefix(IN_IMAGE)
        assert path.is_file(), word
        assert path.stat().st_mode & 0o111 or path.suffix != ".sh", f"{word} is not executable"
    assert only["image"].endswith(f":{__version__}")


def test_an_mpijob_has_a_process_for_every_card() -> None:
    job = documents("mpijob")[1]
    only = container(pods(job)["Worker"])
    assert job["spec"]["slotsPerWorker"] == only["resources"]["limits"]["nvidia.com/gpu"]
    assert "nvidia.com/gpu" not in container(pods(job)["Launcher"])["resources"]["limits"]


def test_an_mpijob_agrees_with_ssh_and_the_image() -> None:
    job = documents("mpijob")[1]
    only = container(pods(job)["Worker"])
    port, keys = only["ports"][0], job["spec"]["sshAuthMountPath"]
    server, client = ((SCRIPTS / "kubernetes" / name).read_text() for name in ("sshd_config", "ssh_config"))
    assert f"\nHostKey {keys}/id_rsa\n" in server
    assert f" {keys}/id_rsa.pub\n" in client
    assert f"\nPort {port['containerPort']}\n" in server
    assert f" Port {port['containerPort']}\n" in client
    assert only["readinessProbe"]["tcpSocket"]["port"] == port["name"]
    assert f"--create-home {Path(keys).parent.name} " in (CHECKOUT_ROOT / "Dockerfile").read_text()


def test_a_pytorchjob_restarts_by_exit_code_and_counts_its_cards_once() -> None:
    spec = documents("pytorchjob")[1]["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    assert {replica["restartPolicy"] for replica in replicas.values()} == {"ExitCode"}
    assert replicas["Master"]["template"] == replicas["Worker"]["template"]
    only = container(replicas["Master"]["template"]["spec"])
    assert only["name"] == "pytorch"
    assert spec["nprocPerNode"] == str(only["resources"]["limits"]["nvidia.com/gpu"])
