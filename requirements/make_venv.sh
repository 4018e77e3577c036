#!/usr/bin/env bash
# Make VENV hold exactly requirements/cpu.txt and this project (editable), with bytecode compiled.
# Does nothing when it already does: a stamp in VENV records the lock and pyproject.toml it was made from.
#
#   requirements/make_venv.sh [VENV]        PYTHON=python3.11 names the interpreter of a new environment
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv}
lock=requirements/cpu.txt
stamp=$venv/.srpo-lock
wanted=$(sha256sum "$lock" pyproject.toml requirements/make_venv.sh; pwd)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then exit 0; fi

if [[ ! -x $venv/bin/python ]]; then
    python=${PYTHON:-python3.11}
    # Asked, not looked for: a version manager has a command for each version it knows, installed or not.
    if ! "$python" -c "" 2>/dev/null; then python=python3; fi
    version=$("$python" -c 'import platform, sys; print("%d.%d" % sys.version_info[:2], sys.platform, platform.machine())')
    if [[ $version != "3.11 linux x86_64" ]]; then
        echo "requirements/cpu.txt is locked for Python 3.11 on Linux x86_64; $python is: $version." >&2
        echo "Name a Python 3.11 with: make venv PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    echo "creating $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check)

# The CPU build of torch is not on PyPI. Where pip is not configured to find it, PyTorch's own index has it.
torch=$(grep -oE '^torch==[^ ]+' "$lock")
torch_index=()
if ! "${pip[@]}" install --quiet --dry-run --no-deps "$torch" >/dev/null 2>&1; then
    torch_index=(--extra-index-url https://download.pytorch.org/whl/cpu)
fi

log=$venv/install.log
echo "installing $(grep -cE '^[a-z]' "$lock") packages (about 2.6 GB; two to three minutes, more on a busy machine); log: $log"
if ! "${pip[@]}" install --progress-bar off --no-deps "${torch_index[@]}" -r "$lock" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi

# What an earlier lock left behind goes: a stray torchvision is enough to break transformers.
normalise() { tr '[:upper:]_.' '[:lower:]--' | sort -u; }
strays=$(comm -23 \
    <("${pip[@]}" list --format=freeze --exclude-editable --exclude pip --exclude srpo-verl | sed -E 's/[ =@].*//' | normalise) \
    <(grep -oE '^[A-Za-z0-9][A-Za-z0-9._-]*' "$lock" | normalise))
if [[ -n $strays ]]; then
    # shellcheck disable=SC2086 # a word for each package
    echo "removing what is not in $lock:" $strays
    # shellcheck disable=SC2086 # a word for each package
    "${pip[@]}" uninstall -qq --yes $strays
    # Packages of the tests and of the site are among them: the Makefile installs them again.
    rm -f "$venv"/*_packages.txt
fi

"${pip[@]}" install -qq --no-deps --no-build-isolation -e .

# Without .pyc files verl starts three minutes slower, and where PYTHONDONTWRITEBYTECODE is set they never appear by themselves.
# compileall writes them all the same and skips the ones that are there. Its exit status only says that some packages ship
# templates and Python 2 files that do not compile.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "compiling bytecode"
"$venv/bin/python" -m compileall -qq -j "$(nproc)" "$site" || true

echo "$wanted" >"$stamp"
