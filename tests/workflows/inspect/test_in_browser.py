"""The page of a step in a real browser: what its controls change, against values by hand."""

import pytest

from tests.workflows.inspect.dumps import WORDS, write_run
from tests.workflows.report.browser import CHROMIUM, Page
from workflows.inspect.page import build_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    return build_page(write_run(tmp_path_factory.mktemp("step") / "run"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


def opened(browser, path):
    """The page with all rollouts drawn."""
    browser.open(path, width=1280)
    browser.value("document.querySelectorAll('.rollout').forEach(item => { item.open = true; })")
    # The toggle events come after this turn of the loop.
    wait = "new Promise(done => setTimeout(done, 0))"
    browser.call("Runtime.evaluate", expression=wait, awaitPromise=True)
    return browser


@pytest.fixture
def page(browser, inspected):
    return opened(browser, inspected)


def choose(page, control, value):
    page.value(
        f"(c => {{ c.value = {value!r}; c.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
        f"(document.getElementById('{control}'))"
    )


def values(page, row):
    listed = f"[...document.querySelectorAll('[data-row=\"{row}\"] .tokens span')].map(t => t.dataset.value).join(';')"
    return [float(value) if value else None for value in page.value(listed).split(";")]


def branches(page):
    return page.value("[...document.querySelectorAll('.rollout')].map(r => r.dataset.branch).join(' ')").split()


@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_whole_and_asks_nothing_of_the_network(browser, inspected, width):
    browser.open(inspected, width=width)
    assert browser.errors() == []
    assert browser.requests() == [inspected.absolute().as_uri()]
    assert browser.value("document.documentElement.scrollWidth") == width


def test_beta_changes_the_weights(page):
    """Raw weights 1, 1/2, 1/4, 1 with beta 1, mean 11/16; 1, 1/4, 1/16, 1 with beta 2, mean 37/64."""
    assert page.value("document.getElementById('beta-value').textContent") == "1"
    assert values(page, 1) == [pytest.approx(16 / 11, rel=1e-4), pytest.approx(8 / 11, rel=1e-4), None]
    assert values(page, 2) == [pytest.approx(4 / 11, rel=1e-4), pytest.approx(16 / 11, rel=1e-4)]
    choose(page, "beta", 6)
    assert page.value("document.getElementById('beta-value').textContent") == "2"
    assert values(page, 1) == [pytest.approx(64 / 37, rel=1e-4), pytest.approx(16 / 37, rel=1e-4), None]
    assert values(page, 2) == [pytest.approx(4 / 37, rel=1e-4), pytest.approx(64 / 37, rel=1e-4)]
    choose(page, "beta", 0)
    assert values(page, 1) == [1.0, 1.0, None]


def test_another_route_distils_others_and_has_another_mean(page):
    assert branches(page) == ["reinforced", "distilled", "distilled", "neither", "neither"]
    choose(page, "route", "longest_wrong")
    assert branches(page) == ["reinforced", "distilled", "reinforced", "neither", "neither"]
    # The mean is over the two tokens of rollout 1 alone, 3/4.
    assert values(page, 1) == [pytest.approx(4 / 3, rel=1e-4), pytest.approx(2 / 3, rel=1e-4), None]
    assert values(page, 2) == [None, None]
    assert page.value("document.getElementById('change').textContent") == (
        "Route longest_wrong: 1 of the batch's 5 rollouts distilled; "
        "0 that the run did not distil, 1 fewer of those it did."
    )
    assert "in the run it was distilled" in page.value("document.querySelector('[data-row=\"2\"] .why').textContent")
    choose(page, "route", "none")
    assert "distilled" not in branches(page)


def test_shadings(page):
    colour = "getComputedStyle(document.querySelector('[data-row=\"{}\"] .tokens span')).backgroundColor"
    blue = page.value(colour.format(1))
    choose(page, "shading", "advantage")
    assert values(page, 0) == [pytest.approx(2 / 3, rel=1e-5)] * 3
    assert values(page, 1) == [0.0, 0.0, None]
    assert page.value(colour.format(1)) not in (blue, page.value(colour.format(0)))
    choose(page, "shading", "divergence")
    assert (values(page, 1), values(page, 2)) == ([0.25, 0.125, None], [0.5, 0.0625])
    about = page.value("document.getElementById('about').textContent")
    assert about == "0 to 0.5, divergence (of the loss, before the first update)"
    known = page.value("document.getElementById('known').textContent")
    assert "jsd between student and teacher over the student's top 100 tokens and one bucket for the rest" in known
    assert "two buckets" not in known + page.value("document.getElementById('shading').textContent")
    choose(page, "shading", "teacher_entropy")
    assert values(page, 2) == [pytest.approx(1.386294, rel=1e-5), 0.0]
    choose(page, "shading", "importance")
    assert page.value("document.getElementById('about').textContent").startswith("No token here has")


def test_without_a_divergence_in_the_loss_there_is_a_bound_and_it_is_called_one(browser, tmp_path):
    page = opened(browser, build_page(write_run(tmp_path / "run", advantage_mix=0.5, policy_gradient="all")))
    choose(page, "shading", "two_bucket_divergence")
    assert values(page, 1) == [pytest.approx(0.033822, rel=1e-3)] * 2 + [None]
    about = page.value("document.getElementById('about').textContent")
    assert about.endswith(", lower bound of the divergence, over two buckets")
    assert "of the loss" not in page.value("document.getElementById('shading').textContent")
    assert "there is none in this run's loss" in page.value("document.getElementById('known').textContent")


def test_hostile_text_stays_text(page):
    assert (
        page.value("document.querySelector('[data-row=\"1\"] .tokens').textContent") == WORDS[3] + WORDS[4] + WORDS[9]
    )
    prompt = "document.querySelectorAll('[data-row=\"1\"] .texts pre')[1].textContent"
    assert page.value(prompt) == WORDS[0] + WORDS[4] + WORDS[9]
    assert page.value("document.querySelectorAll('#content img, #content script').length") == 0
    assert page.value("document.title") == "Step 10 of run"
    assert page.errors() == []


def test_a_tools_token_is_grey_and_every_token_has_its_numbers(page):
    assert page.value("document.querySelectorAll('[data-row=\"1\"] .masked').length") == 1
    page.value("document.querySelectorAll('[data-row=\"1\"] .tokens span')[2].click()")
    readout = "document.getElementById('readout').textContent"
    assert page.value(readout) == 'token 2, id 9, "<|im_end|>": not trained on'
    page.value("document.querySelectorAll('[data-row=\"2\"] .tokens span')[0].click()")
    assert 'token 0, id 0, "one": weight 0.3636' in page.value(readout)


def test_the_sibling_that_was_shown(page):
    texts = "[...document.querySelectorAll('[data-row=\"2\"] .texts h4')].map(h => h.textContent).join('|')"
    assert page.value(texts) == "Response, shaded|The teacher's prompt|Shown: rollout 0 of the group"


def test_of_few_groups_the_others_still_count(browser, tmp_path):
    browser.open(build_page(write_run(tmp_path / "run", groups=1)), width=1280)
    assert browser.value("document.querySelectorAll('.rollout').length") == 3
    assert "tokens of 1 of the batch's 2 groups" in browser.value("document.querySelector('.lead').textContent")
    assert "2 of the batch's 5 rollouts" in browser.value("document.getElementById('change').textContent")
