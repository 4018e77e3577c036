"""The documentation as a site: it is built without a warning, fetches nothing, and a dead link stops it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PROCESS

pytest.importorskip("mkdocs", reason="the packages of requirements/docs.txt: `make docs`")
pytest.importorskip("latex2mathml.converter", reason="the packages of requirements/docs.txt: `make docs`")

from tests.docs.pages import ROOT, site_module

LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(https?:[^\"'\s>]+)|<link[^>]*(https?:[^\"'\s>]+)")
CONFIG = f"""\
site_name: small
use_directory_urls: false
hooks: [{ROOT}/docs/site/repository.py]
validation: {{links: {{anchors: warn, not_found: warn, unrecognized_links: warn}}}}
"""


def build(folder: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PROCESS)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    result = build(ROOT, out)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.slow
def test_nothing_comes_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    found = [address for page in pages for pair in LOADED.findall(page.read_text()) for address in pair if address]
    assert found == []


@pytest.mark.slow
def test_equations_are_mathml_with_their_numbers(site):
    page = (site / "docs" / "algorithm.html").read_text()
    assert page.count("<math ") > 5
    assert '<span class="equation-number">(1)</span>' in page
    assert "$$" not in page
    assert "arithmatex" not in page


@pytest.mark.slow
def test_commands_and_docstrings_are_there(site):
    assert "--within" in (site / "docs" / "cli.html").read_text()
    assert "bool or in [0, 1]: who is distilled" in (site / "docs" / "api.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("../code.py", None),
        ("../examples/README.md#part", None),
        ("../missing.py", "missing.py"),
        ("../examples/README.md#no-such-part", "no-such-part"),
        ("other.md", "other.md"),
    ],
)
def test_a_link_leads_somewhere_or_stops_the_build(tmp_path, link, says):
    for name, text in {
        "mkdocs.yml": CONFIG,
        "README.md": "# Small\n\n[page](docs/page.md)\n",
        "docs/page.md": f"# Page\n\n[link]({link})\n",
        "examples/README.md": "# Example\n\n## Part\n",
        "code.py": "pass\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    result = build(tmp_path, tmp_path / "site")
    if says:
        assert result.returncode == 1
        assert says in result.stderr
    else:
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "site" / "index.html").exists()
        assert (tmp_path / "site" / "code.py.txt").exists() == (link == "../code.py")


def test_a_formula_that_has_no_mathml_is_refused():
    equations = site_module("equations")
    assert "<mi>&#x003B2;</mi>" in equations.mathml(r"\beta", block=False)
    with pytest.raises(ValueError, match="nosuchcommand"):
        equations.mathml(r"\nosuchcommand x", block=True)
