"""Sampling with vLLM, the prompt made as verl makes it. The same code on CPU and on GPUs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from srpo_verl.cpu.environment import CPU_ENVIRONMENT


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. The defaults are the protocol of the paper (arXiv 2604.02288, Table 3).

    Attributes:
        n: answers per question.
        max_tokens: of one answer; less where prompt and answer would not fit into the model's positions.
        seed: question i is drawn with `seed * 1_000_003 + i * n`, whatever else is drawn with it.
        chat_template_kwargs: verl's `data.apply_chat_template_kwargs`.
    """

    n: int = 16
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 8192
    seed: int = 0
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=lambda: {"enable_thinking": False})

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_tokens < 1:
            raise ValueError(f"n={self.n} and max_tokens={self.max_tokens} must be 1 or more")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"temperature={self.temperature} must not be negative, top_p={self.top_p} within (0, 1]")
        if self.temperature == 0 and self.n > 1:
            raise ValueError("temperature=0 gives the same answer n times: set n=1")

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """One sampled answer. `tokens` counts its end token; `truncated` means that it met the limit first."""

    text: str
    tokens: int
    truncated: bool


class Engine(Protocol):
    """What evaluation needs of an engine."""

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...

    def generate(self, prompts: Sequence[tuple[int, list[int]]]) -> list[list[Answer]]:
        """`n` answers to each of the prompts, which are (number of the question, token ids)."""
        ...


class VLLMEngine:
    """vLLM's offline engine in this process.

    Args:
        model: a Hugging Face folder or a name on the hub.
        tensor_parallel: GPUs that one copy of the model is spread over.
        max_model_len: positions; the model's own by default. Less needs less memory.
        dtype: of weights and arithmetic; `auto` is the model's own on a GPU, float32 on a CPU.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        *,
        tensor_parallel: int = 1,
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
        dtype: str = "auto",
    ):
        import torch

        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        self.sampling = sampling
        options: dict[str, Any] = {"tensor_parallel_size": tensor_parallel, "dtype": dtype}
        if torch.cuda.is_available():
            options["gpu_memory_utilization"] = gpu_memory_utilization
        else:
            for name, value in CPU_ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            options |= {"dtype": "float32" if dtype == "auto" else dtype, "enforce_eager": True}
            options["distributed_executor_backend"] = "uni"
            # A seeded request whose prompt comes in pieces sets its generator back, which torch's CPU generator cannot.
            options["enable_chunked_prefill"] = False
        from verl.utils.tokenizer import hf_tokenizer
        from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
        from vllm import LLM

        self._llm = LLM(model, seed=sampling.seed, max_model_len=max_model_len, **options)
        config = self._llm.llm_engine.model_config
        self._positions = int(config.max_model_len)
        self._tokenizer = hf_tokenizer(model)
        self._builder = create_continuous_token_builder(
            self._tokenizer,
            hf_model_type=config.hf_config.model_type,
            chat_template_kwargs=dict(sampling.chat_template_kwargs),
        )

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The token ids that verl's agent loop would send to its rollout engine."""
        return self._builder.build_initial_tokens([dict(message) for message in messages])

    def generate(self, prompts: Sequence[tuple[int, list[int]]]) -> list[list[Answer]]:
        """See :class:`Engine`. Raises ValueError for a prompt that leaves no room to answer."""
        from vllm import SamplingParams

        sampling = self.sampling
        parameters = []
        for number, ids in prompts:
            room = self._positions - len(ids)
            if room < 1:
                raise ValueError(
                    f"question {number} has {len(ids)} tokens, the model is loaded with {self._positions} positions: "
                    "raise --max-model-len, or leave the question out of the data"
                )
            parameters.append(
                SamplingParams(
                    n=sampling.n,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=min(sampling.max_tokens, room),
                    seed=sampling.seed * 1_000_003 + number * sampling.n,
                    detokenize=False,
                )
            )
        requests = [{"prompt_token_ids": ids} for _, ids in prompts]
        outputs = self._llm.generate(requests, parameters, use_tqdm=False)
        return [[self._answer(one) for one in output.outputs] for output in outputs]

    def _answer(self, output: Any) -> Answer:
        ids = list(output.token_ids)
        text = self._tokenizer.decode(ids, skip_special_tokens=True)  # as verl's reward loop reads it
        return Answer(text, len(ids), output.finish_reason == "length")
