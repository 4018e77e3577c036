"""An exported folder to a repository of the Hugging Face hub: with the user's token, private unless told otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")

# What an earlier export may have left there: beside other weights, readers would load the wrong ones.
_OF_ANOTHER_EXPORT = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "pytorch_model*.bin")


class PushError(RuntimeError):
    """Nothing could be uploaded; the message says why and what to do."""


def check_push(repository: str) -> None:
    """What can be known before a model is merged. Raises PushError."""
    if not _NAME.fullmatch(repository):
        raise PushError(f"--push {repository}: name a repository as OWNER/NAME")
    if not get_token():
        raise PushError("--push needs a token that may write: set HF_TOKEN, or log in with `hf auth login`")


def push(
    folder: Path, files: Mapping[str, int], repository: str, *, step: int, public: bool, tell: Callable[[str], object]
) -> str:
    """Uploads `folder` as one commit, and returns its address. First says what goes where.

    Args:
        files: bytes by name.
        step: of the checkpoint, for the commit's message.
        public: whether everybody may see a new repository, or one that is there already.
        tell: is given the sentence.

    Raises:
        PushError: no token, a public repository where `public` was not said, or what the hub answered.
    """
    check_push(repository)
    api = HfApi()
    try:
        new, seen_by_all = _look(api, repository)
        if seen_by_all and not public:
            raise PushError(f"{repository} is public: say --public, or name another repository")
        state = f"a new {'public' if public else 'private'}" if new else f"the {'public' if seen_by_all else 'private'}"
        size = sum(files.values()) / 1e6
        tell(f"uploading {len(files)} files, {size:.1f} MB, to {state} repository {api.endpoint}/{repository}:")
        for name, count in files.items():
            tell(f"  {name}  {count / 1e6:.1f} MB")
        if new:
            api.create_repo(repository, private=not public)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"srpo export: checkpoint of step {step}",
            delete_patterns=list(_OF_ANOTHER_EXPORT),
        )
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise PushError(
            f"{repository}: {error}. The export is whole in {folder}; `hf upload` sends it again"
        ) from error
    return f"{api.endpoint}/{repository}"


def _look(api: HfApi, repository: str) -> tuple[bool, bool]:
    """Whether the repository is new, and whether everybody sees it."""
    try:
        return False, not api.repo_info(repository).private
    except RepositoryNotFoundError:
        return True, False
