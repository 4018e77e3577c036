"""`srpo reproduce` on a real Ray cluster of two nodes, one of which is lost. `make test-cluster`."""

import subprocess
import sys
import time

import pytest
import yaml

from tests.patience import RUN, STACK_TEST
from tests.stack.launch import write_data
from tests.stack.two_nodes import DASHBOARD, TwoNodes, available
from workflows.reproduce.backends import backend_of
from workflows.reproduce.spec.cell import cells
from workflows.reproduce.spec.grid import Grid
from workflows.reproduce.spec.settings_file import load
from workflows.reproduce.spec.site import Site
from workflows.reproduce.states import state_of

pytestmark = [
    pytest.mark.stack,
    pytest.mark.cluster,
    pytest.mark.timeout(STACK_TEST),
    pytest.mark.skipif(not available(), reason="needs root and iproute2 for network namespaces"),
]

STEPS = 4


@pytest.fixture
def cluster():
    nodes = TwoNodes()
    try:
        nodes.start_head()
        yield nodes
    finally:
        nodes.close()


def test_a_run_over_two_nodes_survives_the_loss_of_one(cluster, stack_model, tmp_path):
    data = write_data(stack_model.parent)
    files = write_files(tmp_path, stack_model, data, address=f"http://{cluster.addresses[cluster.head]}:{DASHBOARD}")
    site = load(files[1], Site)
    (cell,) = cells(load(files[0], Grid), site.runs)
    backend = backend_of(site)
    command = [
        sys.executable,
        "-m",
        "workflows.cli",
        "reproduce",
        str(files[0]),
        "--site",
        str(files[1]),
        "--no-report",
    ]

    # The worker comes later than the job: the job waits for its GPU.
    first = cluster.popen(cluster.head, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: "waiting for GPUs: the Ray cluster has 1 of 2" in log_of(cell), first, cell)
    cluster.start_worker()
    wait_until(lambda: (cell.folder / "latest_checkpointed_iteration.txt").is_file(), first, cell)
    for namespace in (cluster.head, cluster.worker):
        assert any("WorkerDict" in title or "ActorRollout" in title for title in cluster.titles(namespace)), namespace
    cluster.lose(cluster.worker)

    told, _ = first.communicate(timeout=RUN)
    assert first.returncode == 1, told
    state = state_of(cell, site, backend)
    assert state.state == "failed"
    assert f"Node {cluster.addresses[cluster.worker]} left the Ray cluster" in state.reason
    assert "left the Ray cluster" in told
    before = [record.step for record in cell.records()]

    # The head is still usable: with a new worker the cell goes on from its last checkpoint.
    cluster.start_worker()
    second = cluster.popen(
        cluster.head, [*command, "--retry-failed"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    told, _ = second.communicate(timeout=RUN)
    assert second.returncode == 0, told + log_of(cell)[-3000:]
    assert f"started, on from step {before[-1]}" in told
    assert [record.step for record in cell.records()] == list(range(STEPS + 1))
    starts = sorted((cell.folder / "srpo_run").glob("*/metrics.jsonl"))
    assert len(starts) == 2
    assert '"step": 1,' not in starts[1].read_text()


def write_files(folder, model, data, *, address):
    grid = {
        "name": "two_nodes",
        "benchmarks": [{"name": "sums", "train": data.name, "val": data.name}],
        "models": [{"name": "tiny", "path": str(model)}],
        "methods": [{"name": "srpo"}],
        "seeds": [1],
        "budget": {"steps": [STEPS]},
        "overrides": [
            "data.train_batch_size=4",
            "data.max_prompt_length=64",
            "data.max_response_length=16",
            "data.filter_overlong_prompts=false",
            "data.apply_chat_template_kwargs={}",
            "actor_rollout_ref.rollout.n=4",
            "actor_rollout_ref.rollout.max_model_len=256",
            "actor_rollout_ref.rollout.val_kwargs.n=1",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024",
            "srpo.topk=16",
            "reward.custom_reward_function.path=pkg://tests.stack.reward",
            "trainer.save_freq=1",
            "trainer.test_freq=-1",
            "trainer.max_actor_ckpt_to_keep=10",
        ],
    }
    site = {
        "backend": "ray",
        "data": str(data.parent),
        "runs": str(folder / "runs"),
        "nodes": 2,
        "gpus_per_node": 1,
        "cpu_only": True,
        "python": sys.executable,
        "env": {"GLOO_SOCKET_IFNAME": "eth0", "HF_HUB_OFFLINE": 1},
        "ray": {"address": address},
    }
    paths = folder / "grid.yaml", folder / "site.yaml"
    for path, content in zip(paths, (grid, site), strict=True):
        path.write_text(yaml.safe_dump(content))
    return paths


def log_of(cell):
    path = cell.folder / "train.log"
    return path.read_text(errors="replace") if path.is_file() else ""


def wait_until(condition, program, cell, *, timeout=RUN):
    deadline = time.monotonic() + timeout
    while not condition():
        ended = program.poll() is not None
        told = program.stdout.read() if ended else ""
        assert not ended, told + log_of(cell)[-4000:]
        assert time.monotonic() < deadline, log_of(cell)[-4000:]
        time.sleep(0.2)
