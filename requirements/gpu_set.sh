#!/usr/bin/env bash
# Make VENV hold requirements/gpu.txt, the tools of the tests and this project (editable). No GPU is needed for it.
# Does nothing when it already does.
#
#   requirements/gpu_set.sh [VENV]        PYTHON=python3.12 names the interpreter (3.11 or 3.12)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv-gpu}
lock=requirements/gpu.txt
stamp=$venv/.srpo-lock
wanted=$(sha256sum "$lock" pyproject.toml requirements/gpu_set.sh; pwd)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then exit 0; fi

if [[ ! -x $venv/bin/python ]]; then
    python=${PYTHON:-python3.12}
    # Asked, not looked for: a version manager has a command for each version it knows, installed or not.
    if ! "$python" -c "" 2>/dev/null; then python=python3; fi
    version=$("$python" -c 'import platform, sys; print("%d.%d" % sys.version_info[:2], sys.platform, platform.machine())')
    if [[ ! $version =~ ^3\.1[12]\ linux\ x86_64$ ]]; then
        echo "$lock is locked for Python 3.11 and 3.12 on Linux x86_64; $python is: $version." >&2
        echo "Name one of them with: make gpu-set PYTHON=/path/to/python3.12" >&2
        exit 1
    fi
    free=$(df --output=avail -BG "$(dirname "$venv")" | tail -1 | tr -dc '0-9')
    if ((free < 15)); then
        echo "$venv takes 11 GB, and up to 4 GB more while it is installed; $free GB are free." >&2
        exit 1
    fi
    echo "creating $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check)

echo "installing $(grep -cE '^[a-z]' "$lock") packages (3.6 GB to download, 11 GB on disk)"
"${pip[@]}" install -qq --no-deps -r "$lock"
# What the tests need beside it, in the versions of the other set.
tools=$(grep -oE '^(pytest-timeout|pytest-xdist|hypothesis)==[^ ]+' requirements/cpu.txt)
# shellcheck disable=SC2086 # a word for each package
"${pip[@]}" install -qq $tools
"${pip[@]}" install -qq --no-deps -e .

echo "importing"
"$venv/bin/python" -c '
import peft, ray, tensordict, torch, transfer_queue, transformers, verl, vllm
import srpo_verl.plugin
print("torch", torch.__version__, "vLLM", vllm.__version__, "verl", verl.__version__, "transformers", transformers.__version__)
srpo_verl.plugin.check_registered()
'
echo "$wanted" >"$stamp"
