"""Memory of the two processes of a run that grow until a cache is full, each without the rest of the run.

    python -m benchmarks.caches ray --bound 10000          # Ray's control service, over calls of an actor
    python -m benchmarks.caches engine --bound 64          # vLLM's CPU engine, over batches of 16 requests
    python -m benchmarks.caches engine --reload 1          # its weights are loaded again before each batch

Without `--bound` the caches are as large as Ray and oneDNN make them. The model is random and tiny.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from srpo_verl.launch.preflight import RAY_HISTORY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ray", "engine"])
    parser.add_argument("--bound", type=int, help="past calls that Ray remembers; primitives that oneDNN keeps")
    parser.add_argument("--count", type=int, help="calls (120000) or batches (300)")
    parser.add_argument("--reload", type=int, choices=[0, 1], default=0)
    options = parser.parse_args()
    (name,) = RAY_HISTORY if options.what == "ray" else ("ONEDNN_PRIMITIVE_CACHE_CAPACITY",)
    os.environ.pop(name, None)
    if options.bound is not None:
        os.environ[name] = str(options.bound)
    if options.what == "ray":
        over_calls(options.count or 120_000)
    else:
        over_batches(options.count or 300, reload=bool(options.reload))


def over_calls(count: int) -> None:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    answering = ray.remote(Answering).remote()

    def calls() -> None:
        for _ in range(10):
            ray.get([answering.answer.remote() for _ in range(count // 200)])

    _report(_child("gcs_server"), calls, rounds=20, each=count // 200 * 10, settle=2.5)


class Answering:
    """An actor."""

    def answer(self) -> None:
        """Nothing."""


def over_batches(count: int, *, reload: bool) -> None:
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", VERL_RAY_JOB_ID=str(os.getpid()))
    from safetensors.torch import load_file
    from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender
    from vllm import LLM, SamplingParams

    import srpo_verl.cpu.platform  # noqa: F401  (before vLLM is imported)
    from tests.training import tiny_model

    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.build(Path(folder) / "model")
        weights = load_file(model / "model.safetensors")
        llm = LLM(
            str(model),
            dtype="float32",
            enforce_eager=True,
            max_model_len=256,
            worker_extension_cls="srpo_verl.cpu.vllm_worker.CPUWorkerExtension",
        )
        handle, rng = llm.collective_rpc("_get_zmq_handle")[0], random.Random(0)

        def batch() -> None:
            if reload:
                sender = BucketedWeightSender(handle, bucket_size_mb=64, use_shm=True)
                sending = threading.Thread(target=lambda: asyncio.run(sender.async_send_weights(weights.items())))
                sending.start()
                llm.collective_rpc("update_weights_from_ipc", kwargs={"use_shm": True})
                sending.join()
            # As in a rollout, the number of tokens computed at once is different each time.
            prompts = [[rng.randrange(3, 250) for _ in range(rng.randrange(10, 30))] for _ in range(16)]
            limits = [SamplingParams(max_tokens=rng.randrange(1, 17), logprobs=0) for _ in prompts]
            llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], limits, use_tqdm=False)

        def batches() -> None:
            for _ in range(count // 15):
                batch()

        _report(_child("VLLM::"), batches, rounds=15, each=count // 15)


def _child(title: str) -> psutil.Process:
    """The largest process below this one whose command contains `title`."""
    children = [p for p in psutil.Process().children(recursive=True) if title in " ".join(p.cmdline())]
    return max(children, key=lambda process: process.memory_full_info().uss)


def _report(process: psutil.Process, work: Callable[[], None], *, rounds: int, each: int, settle: float = 0.0) -> None:
    for done in range(rounds + 1):
        time.sleep(settle)
        times = process.cpu_times()
        memory = process.memory_full_info().uss / 2**20
        print(f"{done * each}: {memory:.1f} MiB, {times.user + times.system:.1f} s of CPU", flush=True)
        if done < rounds:
            work()


if __name__ == "__main__":
    main()
