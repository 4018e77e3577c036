"""The RayJob manifest: fields against KubeRay's API, pods against Kubernetes' schema; a `kubectl` that runs it here."""

import copy
import os

import pytest
import yaml

from workflows.reproduce.backends import backend_of

# Field names and types of ray.io/v1 RayJob and RayCluster that the manifest may use (KubeRay API reference, v1.2-v1.5).
RAY_JOB_SPEC = {
    "entrypoint": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": dict,
}
RAY_CLUSTER_SPEC = {"rayVersion": str, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD_GROUP = {"rayStartParams": dict, "template": dict}
WORKER_GROUP = {**HEAD_GROUP, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}

KUBECTL = """#!/usr/bin/env bash
# Plays kubectl and the KubeRay operator: runs the entrypoint of the manifest, remembers its end.
here=$KUBE_HERE
case " $* " in
*" apply "*)
    file=${*: -1}
    run=$(grep entrypoint: "$file" | cut -d'"' -f2)
    (cd "$here" && setsid bash -c "$run; echo \\$? >ended" >output 2>&1 </dev/null &)
    grep -m1 name: "$file" | awk '{print $2}' >"$here/name" ;;
*" get "*)
    [[ -f $here/name ]] && grep -q -- "$(cat "$here/name")" <<<"$*" || exit 0
    status=Running
    [[ -f $here/ended ]] && status=$([[ $(cat "$here/ended") == 0 ]] && echo Complete || echo Failed)
    case "$*" in
    *jobDeploymentStatus*) echo "x $status" ;;
    *reason*) echo "x AppFailed" ;;
    *) echo "x Job failed" ;;
    esac ;;
*" delete "*) rm -f "$here/name" "$here/ended" ;;
esac
"""


@pytest.fixture
def kubernetes(laboratory, monkeypatch):
    kubectl = laboratory.folder / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    here = laboratory.folder / "kube"
    here.mkdir()
    monkeypatch.setenv("KUBE_HERE", str(here))
    laboratory.section = {
        "image": "registry.example/srpo:1",
        "namespace": "lab",
        "claims": {"runs": "/mnt/runs", "data": "/mnt/data"},
        "ray_version": "2.60.0",
        "node_selector": {"gpu": "h200"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "kubectl": [str(kubectl)],
    }
    laboratory.write_site(backend="kubernetes", nodes=2, kubernetes=laboratory.section, env={"HF_HUB_OFFLINE": 0})
    return laboratory


def manifest_of(laboratory, nodes=2):
    laboratory.write_site(backend="kubernetes", nodes=nodes, kubernetes=laboratory.section, env={"HF_HUB_OFFLINE": 0})
    _, site = laboratory.load()
    return yaml.safe_load(backend_of(site).files(laboratory.cells()[0], "srpo-job-1")["rayjob.yaml"])


def check(fields, known, required=()):
    for name, value in fields.items():
        assert name in known, f"no field {name}"
        assert type(value) is known[name], f"{name} is {type(value).__name__}"
    assert set(required) <= set(fields)


@pytest.mark.parametrize("nodes", [1, 4])
def test_the_manifest_has_only_fields_of_a_rayjob(kubernetes, nodes):
    manifest = manifest_of(kubernetes, nodes)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert manifest["metadata"]["name"] == "srpo-job-1"
    assert manifest["metadata"]["namespace"] == "lab"
    spec = manifest["spec"]
    check(spec, RAY_JOB_SPEC, required=["entrypoint", "rayClusterSpec"])
    check(spec["rayClusterSpec"], RAY_CLUSTER_SPEC, required=["headGroupSpec"])
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"].get("workerGroupSpecs", [])]
    check(groups[0], HEAD_GROUP, required=HEAD_GROUP)
    for group in groups[1:]:
        check(group, WORKER_GROUP, required=["groupName", "template"])
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == nodes - 1
    assert len(groups) == (1 if nodes == 1 else 2)
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert {"name": "HF_HUB_OFFLINE", "value": "0"} in container["env"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"shared-memory": "/dev/shm", "runs": "/mnt/runs", "data": "/mnt/data"}
        assert {volume["name"] for volume in group["template"]["spec"]["volumes"]} == set(mounts)


def test_the_pods_fit_the_schema_of_kubernetes(kubernetes):
    validate = pytest.importorskip("kubernetes_validate").validate
    cluster = manifest_of(kubernetes)["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **copy.deepcopy(group["template"])}
        validate(pod, "1.31", strict=True)
        mount = pod["spec"]["containers"][0]["volumeMounts"][0]
        mount["mountpath"] = mount.pop("mountPath")
        with pytest.raises(Exception, match=r"mountPath|mountpath"):
            validate(pod, "1.31", strict=True)


def test_names_are_short_enough_for_kuberay(kubernetes):
    from workflows.reproduce.run_cell import next_job_name

    long = "a" * 40
    kubernetes.write(
        benchmarks=[{"name": long, "train": "x", "val": "y"}], models=[{"name": "b.b_" + "b" * 30, "path": "m"}]
    )
    names = [next_job_name(cell) for cell in kubernetes.cells()]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 47 and name.replace("-", "").isalnum() and name[0].isalpha() for name in names)


def test_a_cell_runs_and_its_rayjob_is_deleted(kubernetes):
    chosen = kubernetes.cells()[:1]
    assert kubernetes.run(chosen) == [("started", chosen[0].name), ("done", chosen[0].name)]
    assert os.listdir(kubernetes.folder / "kube") == ["output"]


def test_what_kubernetes_says_of_a_failure_is_passed_on(kubernetes):
    kubernetes.write(overrides=["+stand_in.fault=raises"])
    kubernetes.run(kubernetes.cells()[:1])
    reason = kubernetes.states()[kubernetes.cells()[0].name].reason
    assert reason.startswith("Kubernetes: AppFailed, Job failed\nexit code 1\nRuntimeError: CUDA out of memory")
