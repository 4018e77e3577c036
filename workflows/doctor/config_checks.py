"""What a composed config names: its settings, data, model, tokenizer and chat template."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from srpo_verl.config.data_check import check_file
from srpo_verl.config.model_path import missing_folder
from workflows.doctor.check import Check, fail, ok, warn

_SEE_TEMPLATE = "see data.apply_chat_template_kwargs and the template"


def check_settings(config: DictConfig) -> Iterator[Check]:
    """What the preflight of a run would refuse or warn of; its sentences say what to change."""
    import verl  # noqa: F401  (loads the plugin, which the preflight looks for)

    from srpo_verl.launch.preflight import check

    problems, warnings = check(config)
    for problem in problems:
        yield fail("config", problem)
    for warning in warnings:
        yield warn("config", warning)
    if not problems and not warnings:
        yield ok("config", "settings, data files and model fit together")


def usable_files(config: DictConfig) -> Iterator[tuple[str, str, int]]:
    """(key, path, rows) of each local Parquet file that a run could read; of all others the preflight says why not."""
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for name in files if isinstance(files, list | ListConfig) else [files]:
            path = os.path.expanduser(str(name))
            if os.path.isfile(path) and path.endswith(".parquet"):
                keys = {"prompt_key": config.data.prompt_key, "source_key": config.data.reward_fn_key}
                report = check_file(path, **keys, each_row=False)
                if not report.problems:
                    yield f"data.{key}", path, report.rows


def check_data(config: DictConfig) -> Iterator[Check]:
    """Rows of each data file that can be used."""
    for key, path, rows in usable_files(config):
        yield ok("data", f"{key}={path}: {rows} rows")


def check_model(config: DictConfig) -> Iterator[Check]:
    """The model is here (or will be fetched), its tokenizer loads, and its chat template renders a question.

    Damaged weights are the preflight's to say.
    """
    model = config.actor_rollout_ref.model
    name = os.path.expanduser(str(model.path))
    if missing_folder(config):
        return  # the preflight's to say
    if not os.path.isdir(name) and not is_cached(name):
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
            yield fail(
                "model",
                f"{name} is neither a folder nor in the hub's cache, and HF_HUB_OFFLINE is set",
                "download it first (`hf download`), or give a folder as actor_rollout_ref.model.path",
            )
        else:
            yield warn(
                "model",
                f"{name} is not on this machine: it will be downloaded when the run starts",
                f"fetch it now: hf download {name}",
            )
        return
    yield from _tokenizer(os.path.expanduser(str(model.tokenizer_path or name)), config)


def is_cached(name: str) -> bool:
    """Whether the hub's local cache has this model's config."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # not a name that the hub could have, as a path of a folder that is missing
        return False


def _tokenizer(name: str, config: DictConfig) -> Iterator[Check]:
    from transformers import AutoConfig, AutoTokenizer

    model = str(config.actor_rollout_ref.model.path)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
        described = AutoConfig.from_pretrained(os.path.expanduser(model), local_files_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file makes transformers raise whatever it stumbles over
        yield fail(
            "model",
            f"{name}: tokenizer or config cannot be loaded: {_first_line(error)}",
            "a complete Hugging Face folder has config.json, tokenizer.json and tokenizer_config.json",
        )
        return
    if tokenizer.chat_template is None and not config.actor_rollout_ref.model.custom_chat_template:
        yield fail(
            "model",
            f"the tokenizer of {name} has no chat template: data rows are messages",
            "take the instruct model, or set actor_rollout_ref.model.custom_chat_template",
        )
        return
    vocabulary = getattr(described.get_text_config(), "vocab_size", None)
    if vocabulary is not None and len(tokenizer) > vocabulary:
        yield fail(
            "model",
            f"the tokenizer has {len(tokenizer)} tokens, the model {vocabulary}",
            "they are of different models, or the embedding was not resized",
        )
        return
    options = OmegaConf.to_container(config.data.apply_chat_template_kwargs or OmegaConf.create({}))
    assert isinstance(options, dict)
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "1 + 1?"}],
            chat_template=config.actor_rollout_ref.model.custom_chat_template,
            add_generation_prompt=True,
            tokenize=False,
            **{str(key): value for key, value in options.items()},
        )
    except Exception as error:  # noqa: BLE001 - a template is a program
        yield fail("model", f"the chat template of {name} cannot be rendered: {_first_line(error)}", _SEE_TEMPLATE)
        return
    if "1 + 1?" not in text:
        yield fail(
            "model",
            f"the chat template of {name} drops the question: it renders {text!r}",
            _SEE_TEMPLATE,
        )
        return
    yield ok("model", f"{model}: {len(tokenizer)} tokens, the chat template renders a question")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
