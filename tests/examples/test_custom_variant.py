"""The example package of variants, found by its entry point in a process of its own."""

import json
import subprocess
import sys

import pytest

from tests.examples.variant_package import environment, install
from tests.patience import PROCESS

CODE = """
import json, sys
from srpo_verl.config import settings
try:
    srpo = settings(json.loads(sys.argv[1]))
except ValueError as error:
    print(json.dumps({"error": str(error)}))
else:
    from srpo_verl.training.durable.run_record import foreign_variants
    print(json.dumps({"found": foreign_variants(srpo), "options": str(srpo.options)}))
"""
ALL = {
    "route": "hard",
    "providers": ["sibling", "solution"],
    "divergence": "skew_kl",
    "weighting": "gap",
    "advantage": "median",
    "teacher": {"kind": "every_ten"},
    "metrics": ["repetition"],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("variants"))


def ask(site, node):
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(node)],
        env=environment(site), cwd="/", capture_output=True, text=True, timeout=PROCESS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_kind_is_found_and_named_with_its_package(site):
    answer = ask(site, ALL)
    assert answer["found"]["divergence=skew_kl"].startswith("my_variants:skew_kl, my-variants 0.1.0, sha256 ")
    kinds = {key.partition("=")[0] for key in answer["found"]}
    assert kinds == {"route", "provider", "divergence", "weighting", "advantage", "teacher", "metric"}
    assert "Skew(share=0.1)" in answer["options"]


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"options": {"skew_kl": {"shre": 0.2}}}, "srpo.options.skew_kl: Key 'shre' not in 'Skew'"),
        ({"options": {"skew_kl": {"share": "much"}}}, "srpo.options.skew_kl: Value 'much'"),
        ({"divergence": "skew_lk"}, "srpo.divergence='skew_lk' is not one of jsd, "),
    ],
)
def test_a_slip_in_the_settings_is_named(site, node, says):
    assert says in ask(site, {**ALL, **node})["error"]
