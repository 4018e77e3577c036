#!/usr/bin/env bash
# Build the source distribution and, from it, the wheel into dist/, and look at both.
# Needs a package index; the environments that it makes are removed at the end.
#
#   requirements/dist.sh        PYTHON=python3.11 names the interpreter
set -euo pipefail
unset PYTHONPATH
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
pip() { "$1/bin/python" -m pip --quiet --disable-pip-version-check install "${@:2}"; }

rm -rf dist
"$python" -m venv "$place/tools"
pip "$place/tools" build twine
"$place/tools/bin/python" -m build --outdir dist .
"$place/tools/bin/twine" check --strict dist/*

# An empty environment: the wheel and what its command line imports. No torch, no verl.
"$python" -m venv "$place/empty"
pip "$place/empty" --no-deps dist/*.whl
pip "$place/empty" typer omegaconf
"$place/empty/bin/python" requirements/check_wheel.py
ls -l dist
