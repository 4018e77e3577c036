#!/usr/bin/env bash
# SRPO as in Table 3 of arXiv 2604.02288 on one node. Variables below; further words are Hydra overrides.
set -euo pipefail

METHOD=${METHOD:-srpo}
MODEL=${MODEL:-Qwen/Qwen3-8B}
DATA=${DATA:-runs/data/chemistry}
OUT=${OUT:-runs/$METHOD}
GPUS=${GPUS:-8}

python3 -m verl.trainer.main_ppo --config-name "$METHOD" \
    actor_rollout_ref.model.path="$MODEL" \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    trainer.n_gpus_per_node="$GPUS" \
    trainer.default_local_dir="$OUT" \
    "$@"
