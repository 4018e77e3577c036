"""Seeds of rollouts."""

from srpo_verl.training.rollout.rollout_seeds import rollout_seed


def test_the_seed_depends_on_everything_and_nothing_else():
    base = {"run": 42, "step": 3, "prompt": "0000003-00001", "sample": 0}
    seeds = [rollout_seed(**base), *(rollout_seed(**{**base, key: value}) for key, value in
             (("run", 43), ("step", 4), ("prompt", "0000003-00002"), ("sample", 1)))]  # fmt: skip
    assert len(set(seeds)) == 5
    assert rollout_seed(**base) == seeds[0] == 1349788746
    assert all(0 <= seed < 2**31 for seed in seeds)
