"""The page in a real browser: nothing fetched, nothing broken, nothing too wide, with and without its script."""

import numpy as np
import pytest
from PIL import Image

from tests.workflows.report.browser import CHROMIUM, Page
from tests.workflows.report.run_folders import write_run
from workflows.report import build_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for method in ("grpo", "srpo"):
        for seed in (0, 1):
            write_run(folder / "runs" / f"{method}-{seed}", method, seed=seed, steps=45, rollouts=seed == 0)
    return build_report([folder / "runs"], folder / "out", budgets=[600.0, 3600.0], samples=50).html


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False)])
def test_the_page_is_whole_and_asks_nothing_of_the_network(page, report, tmp_path, width, dark):
    page.open(report, width=width, dark=dark)
    assert page.errors() == []
    assert page.requests() == [report.absolute().as_uri()]
    assert page.value("document.title") == "Training runs"
    assert page.value("document.documentElement.scrollWidth") == width
    assert page.value("document.querySelectorAll('table').length") >= 5
    # Drawings have a size, tables have rows, and every table has a name for those who cannot see it.
    assert page.value("[...document.querySelectorAll('.panel svg')].every(s => s.getBoundingClientRect().height > 100)")
    assert page.value("[...document.querySelectorAll('table')].every(t => t.rows.length > 1)")
    assert page.value("[...document.querySelectorAll('.scroll, .panel')].every(e => e.getAttribute('aria-label'))")

    shot = tmp_path / "page.png"
    page.screenshot(shot)
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
    assert pixels.shape[1] == width
    assert pixels.shape[0] > 2000
    # Dark on light or light on dark; and no long stretch without anything in it.
    assert bool(np.median(pixels) < 60) == dark
    written = pixels.std(axis=1) > 1
    assert np.diff(np.flatnonzero(written)).max() < 400


def test_filters_and_pages_of_the_rollouts(page, report):
    page.open(report, width=1280)
    shown = "[...document.querySelectorAll('.rollout')].filter(r => !r.hidden)"
    assert page.value(f"{shown}.length") == 20
    assert page.value("document.querySelector('#pager span').textContent") == "page 1 of 3, 50 rollouts"
    page.value("document.querySelector('#pager [data-by=\"1\"]').click()")
    assert page.value("document.querySelector('#pager span').textContent").startswith("page 2 of 3")
    select = "document.querySelector('[name=route]')"
    page.value(f"{select}.value = 'SDPO'; {select}.dispatchEvent(new Event('change', {{bubbles: true}}))")
    assert page.value(f"{shown}.every(r => r.dataset.route === 'SDPO')")
    assert page.value("document.querySelector('#pager span').textContent").startswith("page 1 of ")
    # What a model wrote is shown, and does nothing.
    page.value(f"{shown}.forEach(r => {{ r.open = true }})")
    assert "owned" in page.value("document.querySelector('#list').textContent")
    assert page.value("document.title") == "Training runs"
    assert page.errors() == []


def test_the_theme_button(page, report):
    page.open(report, width=1280)
    before = page.value("getComputedStyle(document.body).backgroundColor")
    page.value("document.getElementById('theme').click()")
    assert page.value("getComputedStyle(document.body).backgroundColor") != before


def test_without_script_everything_is_there(page, report):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(report, width=1280)
        assert page.value("[...document.querySelectorAll('.rollout')].filter(r => !r.hidden).length") == 50
        assert page.value("getComputedStyle(document.getElementById('filters')).display") == "none"
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
