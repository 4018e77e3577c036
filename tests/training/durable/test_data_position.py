"""verl's training loader, cut at any step and read on in a new process's place: the same prompts."""

import itertools

import pytest
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_sampler

STEPS = 11


def loader(rows: int, workers: int, shuffle: bool) -> StatefulDataLoader:
    """As `PPOTrainer._init_dataloader` builds it."""
    data = list(range(rows))
    sampler = create_rl_sampler(OmegaConf.create({"shuffle": shuffle, "seed": 1}), data)
    return StatefulDataLoader(
        dataset=data, batch_size=4, num_workers=workers, drop_last=True, collate_fn=list, sampler=sampler
    )


def batches(source: StatefulDataLoader):
    """As `PPOTrainer._fetch_one_gen_batch` reads it: epoch after epoch."""
    return itertools.chain.from_iterable(iter(source) for _ in itertools.count())


@pytest.mark.parametrize(("rows", "workers", "shuffle"), [(16, 0, True), (18, 0, True), (16, 2, True), (18, 0, False)])
def test_resumed_at_any_step_the_same_prompts_follow(rows, workers, shuffle, tmp_path):
    whole = loader(rows, workers, shuffle)
    expected = []
    for step, batch in enumerate(itertools.islice(batches(whole), STEPS), 1):
        expected.append(batch)
        torch.save(whole.state_dict(), tmp_path / f"{step}.pt")
    for step in range(1, STEPS) if not workers else (3, 4, 6):
        torch.manual_seed(step)  # a new process has another global state
        resumed = loader(rows, workers, shuffle)
        resumed.load_state_dict(torch.load(tmp_path / f"{step}.pt", weights_only=False))
        assert list(itertools.islice(batches(resumed), STEPS - step)) == expected[step:], step
