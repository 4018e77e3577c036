"""What is measured, on answers whose truth is known."""

import json

import pytest

from laboratory.measure import first_wrong, start_of
from laboratory.start_policy import StartPolicy
from workflows.tiny.start import MANIFEST, Start
from workflows.tiny.warmup import WarmUp


@pytest.mark.parametrize("start", [StartPolicy(3), StartPolicy(3, train=50), Start(4), Start(4, test=20)])
def test_a_folder_says_what_it_was_built_from(start, tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"settings": start.record()}))
    assert start_of(tmp_path) == start


def test_a_folder_of_other_settings_is_refused(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"settings": Start(warm_up=WarmUp(steps=9)).record()}))
    with pytest.raises(ValueError, match="build it again"):
        start_of(tmp_path)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("3 - 4 = 4\n2 + 1 = 2\n4 * 2 = 3\n#### 3", ("3 - 4 = 4\n2 + 1 = ", "3")),
        ("3 + 4 = 1\n2 + 1 = 3", ("3 + 4 = ", "2")),
        ("3 - 4 = 4\n2 + 1 = 3\n4 * 3 = 2\n#### 2", None),
        ("3 - 4 = 4\nI do not know", None),
        ("8 - 9 = 4", None),
    ],
)
def test_the_first_wrong_result_and_the_right_one(answer, found):
    assert first_wrong(answer, Start().task()) == found
