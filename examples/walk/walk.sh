#!/usr/bin/env bash
# From a data set to a report in minutes, on a CPU: prepare -> train -> evaluate -> report.
#   examples/walk/walk.sh [FOLDER]         `make walk` calls it; FOLDER is runs/walk by default
# With SRPO_TEST_DATA the questions are SciKnowEval biology from there; without it, made-up ones.
set -euo pipefail
cd "$(dirname "$0")/../.."
walk=${1:-runs/walk}
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
srpo() { echo; echo "\$ srpo $*"; "$python" -m workflows.cli "$@"; }

mkdir -p "$walk"
"$python" examples/walk/build.py model --out "$walk/model"
source=${SRPO_TEST_DATA:+$SRPO_TEST_DATA/sciknoweval/biology}
if [[ -z $source ]]; then
    source=$walk/questions
    "$python" examples/walk/build.py questions --out "$source"
fi

srpo prepare biology --from "$source" --out "$walk/data" --force

srpo train srpo_tiny --out "$walk/run" --fresh \
    actor_rollout_ref.model.path="$walk/model" \
    data.train_files="$walk/data/train.parquet" data.val_files="$walk/data/test.parquet" data.val_max_samples=32 \
    data.train_batch_size=8 actor_rollout_ref.actor.ppo_mini_batch_size=8 \
    data.filter_overlong_prompts=true data.max_prompt_length=512 data.max_response_length=16 \
    actor_rollout_ref.rollout.max_model_len=1072 \
    trainer.total_training_steps=4 trainer.save_freq=4 trainer.test_freq=4

srpo evaluate "$walk/run" "$walk/data/test.parquet" --out "$walk/evaluation-$(date +%Y%m%d-%H%M%S)" \
    -n 4 --temperature 1.0 --max-tokens 16 --rows 32 --max-model-len 2048

srpo report "$walk/run" --out "$walk/report" --budgets 10s,30s,2m
