"""Small tokenizers of different kinds, trained on the spot; nothing is downloaded."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    f"What is {i} + {j}? The answer is {i + j}. Correct solution: feedback from your earlier attempt {{x_{i}}}\n\n"
    for i in range(20)
    for j in range(20)
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TURNS = (
    "<bos>{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def byte_level(specials: list[str], added: list[str], template: str, **tokens: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    result = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    result.chat_template = template
    return result


def chatml() -> PreTrainedTokenizerFast:
    """Qwen's kind: byte-level, turn markers special, tags of thinking and tools added but not special."""
    return byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ["<think>", "</think>", "<tool_call>"],
        CHATML,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


def plain_markers() -> PreTrainedTokenizerFast:
    """The turn markers are added tokens that nobody declared special; the template trims contents."""
    return byte_level(
        ["<eos>", "<bos>"], ["<start_of_turn>", "<end_of_turn>"], TURNS, eos_token="<eos>", bos_token="<bos>"
    )


def metaspace() -> PreTrainedTokenizerFast:
    """Sentencepiece's kind: spaces as a letter, a dummy space in front, unknown characters as bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials + [f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=100,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The byte tokens are ordinary ones: rebuild without their being special, as converted checkpoints have it.
    loaded = json.loads(tokenizer.to_str())
    loaded["added_tokens"] = [token for token in loaded["added_tokens"] if token["content"] in specials]
    result = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(loaded)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    result.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}</s>"
        "{% else %}<s>[{{ m['role'] }}] {{ m['content'] }} [/{{ m['role'] }}]{% endif %}{% endfor %}"
    )
    return result


def letters() -> PreTrainedTokenizerFast:
    """A vocabulary of letters without a fallback: everything else is the unknown token, which is special."""
    pieces = ["<unk>", "<|end|>", "▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:?0123456789\n "]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token="<unk>"))
    result = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|end|>")
    result.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    return result


ALL = {"chatml": chatml, "plain_markers": plain_markers, "metaspace": metaspace}

TOOL_CHATML = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ 'user' if m['role'] == 'tool' else m['role'] }}\n"
    "{% if m['role'] == 'tool' %}<tool_response>\n{{ m['content'] }}\n</tool_response>"
    "{% else %}{{ m['content'] }}{% for c in m['tool_calls'] or [] %}"
    "{{ '\n<tool_call>\n' }}{\"name\": \"{{ c['function']['name'] }}\", \"arguments\": "
    "{% if c['function']['arguments'] is string %}{{ c['function']['arguments'] }}"
    "{% else %}{{ c['function']['arguments'] | tojson }}{% endif %}}\n</tool_call>{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen's: calls as JSON inside tags, results inside a message of the user's role."""


def tool_chatml() -> PreTrainedTokenizerFast:
    """`chatml` with a template that knows tools."""
    tokenizer = chatml()
    tokenizer.chat_template = TOOL_CHATML
    return tokenizer
