"""Dimensions of a dense decoder, and what follows from them alone: parameters, FLOPs, bytes of KV cache."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UnknownModel(ValueError):
    """A model whose dimensions cannot be had; the message says what to give instead."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder of the Llama / Qwen family: grouped-query attention, gated MLP, RMS norms."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    tied: bool
    qk_norm: bool = False
    qkv_bias: bool = False

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key (or value) heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer."""
        attention = 2 * self.hidden * (self.query + self.key)
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        biases = self.query + 2 * self.key if self.qkv_bias else 0
        return attention + 3 * self.hidden * self.mlp + norms + biases

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        """How many there are of them, rows and columns, of all parameters but the vectors."""
        hidden, query, key, mlp = self.hidden, self.query, self.key, self.mlp
        layer = [(1, query, hidden), (2, key, hidden), (1, hidden, query), (2, mlp, hidden), (1, hidden, mlp)]
        embeddings = 1 if self.tied else 2
        return [(self.layers * n, rows, columns) for n, rows, columns in layer] + [(embeddings, self.vocab, hidden)]

    def adapter_parameters(self, rank: int, modules: Collection[str] | None = None) -> int:
        """Of LoRA's A and B on these linear layers of the decoder, by default all of them.

        Raises:
            ValueError: a module that is none of them.
        """
        hidden, query, key, mlp = self.hidden, self.query, self.key, self.mlp
        ends = {
            "q_proj": hidden + query,
            "k_proj": hidden + key,
            "v_proj": hidden + key,
            "o_proj": query + hidden,
            "gate_proj": hidden + mlp,
            "up_proj": hidden + mlp,
            "down_proj": mlp + hidden,
        }
        if unknown := set(modules or ()) - set(ends):
            raise ValueError(
                f"adapters on {', '.join(sorted(unknown))} are not planned for; on {', '.join(ends)} they are"
            )
        return self.layers * rank * sum(ends[name] for name in modules or ends)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding; the output layer has as many, and is the same tensor if `tied`."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; a tied output layer is counted once."""
        embeddings = self.embedding_parameters * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.hidden

    @property
    def matmul_parameters(self) -> int:
        """Parameters that every token is multiplied with: all but the input embedding."""
        return self.layers * self.layer_parameters + self.embedding_parameters

    def forward_flops(self, tokens: float, context: float) -> float:
        """FLOPs of a forward pass over `tokens` tokens that attend to `context` tokens on average.

        2 per parameter and token, and 4 * query width * context per layer for scores and weighted values.
        """
        return tokens * (2 * self.matmul_parameters + 4 * self.layers * self.query * context)

    def kv_bytes(self, tokens: float, element: int = 2) -> float:
        """Bytes of keys and values of `tokens` tokens."""
        return 2 * self.layers * self.key * tokens * element


def _shape(h: int, layers: int, heads: int, kv: int, d: int, mlp: int, vocab: int, **flags: bool) -> ModelShape:
    return ModelShape(h, layers, heads, kv, d, mlp, vocab, tied=flags.pop("tied", False), **flags)


# Of the models' published config.json, for machines that cannot reach a hub.
KNOWN = {
    "Qwen3-0.6B": _shape(1024, 28, 16, 8, 128, 3072, 151936, tied=True, qk_norm=True),
    "Qwen3-1.7B": _shape(2048, 28, 16, 8, 128, 6144, 151936, tied=True, qk_norm=True),
    "Qwen3-4B": _shape(2560, 36, 32, 8, 128, 9728, 151936, tied=True, qk_norm=True),
    "Qwen3-8B": _shape(4096, 36, 32, 8, 128, 12288, 151936, qk_norm=True),
    "Qwen3-14B": _shape(5120, 40, 40, 8, 128, 17408, 151936, qk_norm=True),
    "Qwen3-32B": _shape(5120, 64, 64, 8, 128, 25600, 151936, qk_norm=True),
    "Qwen2.5-0.5B": _shape(896, 24, 14, 2, 64, 4864, 151936, tied=True, qkv_bias=True),
    "Qwen2.5-1.5B": _shape(1536, 28, 12, 2, 128, 8960, 151936, tied=True, qkv_bias=True),
    "Qwen2.5-3B": _shape(2048, 36, 16, 2, 128, 11008, 151936, tied=True, qkv_bias=True),
    "Qwen2.5-7B": _shape(3584, 28, 28, 4, 128, 18944, 152064, qkv_bias=True),
    "Llama-3.1-8B": _shape(4096, 32, 32, 8, 128, 14336, 128256),
    "SmolLM2-135M": _shape(576, 30, 9, 3, 64, 1536, 49152, tied=True),
    "SmolLM2-360M": _shape(960, 32, 15, 5, 64, 2560, 49152, tied=True),
}
_SUFFIXES = ("-Instruct", "-Base", "-Chat", "-Instruct-2507", "-2507", "-Base-2507")


def shape_of(model: str) -> ModelShape:
    """The dimensions of a local model folder, else of a known model's name, else of the hub's local cache.

    Raises:
        UnknownModel: none of these has it, or it is not a dense decoder.
    """
    local = Path(os.path.expanduser(model))
    if (local / "config.json").is_file():
        return _shape_in(local / "config.json")
    name = local.name
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    if name in KNOWN:
        return KNOWN[name]
    if cached := _cached_config(model):
        return _shape_in(cached)
    raise UnknownModel(
        f"the dimensions of {model!r} are not known here: give a folder that has its config.json as "
        f"actor_rollout_ref.model.path, or one of {', '.join(KNOWN)}"
    )


def _shape_in(file: Path) -> ModelShape:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnknownModel(f"{file} cannot be read: {error}") from error
    return shape_of_config(config, str(file))


def shape_of_config(config: Mapping[str, Any], source: str) -> ModelShape:
    """Dimensions from the fields of a Hugging Face config.json; `source` names it in errors.

    Raises:
        UnknownModel: a mixture of experts, or a field is missing or no number above 0.
    """
    if not isinstance(config, Mapping):
        raise UnknownModel(f"{source} is no config of a model: it holds no object")
    config = config.get("text_config") or config
    if experts := [key for key in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(key)]:
        raise UnknownModel(f"{source} is a mixture of experts ({experts[0]}): only dense models can be planned")
    try:
        for key in ("num_attention_heads", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"):
            if not isinstance(config[key], int) or config[key] <= 0:
                raise UnknownModel(f"{source}: {key} is {config[key]!r}, not a number above 0")
        heads = config["num_attention_heads"]
        return ModelShape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            mlp=config["intermediate_size"],
            vocab=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            qk_norm=config.get("model_type") == "qwen3",
            qkv_bias=bool(config.get("attention_bias", config.get("model_type") == "qwen2")),
        )
    except KeyError as error:
        raise UnknownModel(f"{source} has no {error}: not a decoder of the Llama or Qwen kind") from error


def _cached_config(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json")
    except ValueError:
        return None
    return Path(found) if isinstance(found, str) else None
