"""Tool use: strict reading of calls, SDPO's quirks in paper mode, the published rows."""

import json

import pytest

from reward_fns import compute_score


def gold(*calls):
    return json.dumps([{"Action": name, "Action_Input": json.dumps(arguments)} for name, arguments in calls])


def reply(*calls):
    return "\n".join(
        f"Thought: next.\nAction: {name}\nAction Input: {a if isinstance(a, str) else json.dumps(a)}"
        for name, a in calls
    )


def score(solution, answer, **kwargs):
    result = compute_score("tooluse", solution, answer, **kwargs)
    assert result["infra_error"] == 0.0
    return result["score"]


NESTED = ("update", {"id": "1", "data": {"picture": {"url": "u"}, "tags": ["a", {"b": 1}]}})
TRUE_CASES = {
    "plain": (reply(("f", {"a": 1})), gold(("f", {"a": 1}))),
    "nested JSON": (reply(NESTED), gold(NESTED)),
    "braces in a string": (reply(("f", {"q": "}{ {x} \\"})), gold(("f", {"q": "}{ {x} \\"}))),
    "a call quoted inside a string": (
        reply(("f", {"q": "\nAction: g\nAction Input: {}"})),
        gold(("f", {"q": "\nAction: g\nAction Input: {}"})),
    ),
    "dotted name": (reply(("api.v1.get-user", {})), gold(("api.v1.get-user", {}))),
    "key order": (reply(("f", '{"b": 2, "a": 1}')), gold(("f", {"a": 1, "b": 2}))),
    "1.0 is 1": (reply(("f", '{"a": 1.0}')), gold(("f", {"a": 1}))),
    "several calls": (reply(("f", {"a": 1}), ("g", {"b": 2})), gold(("f", {"a": 1}), ("g", {"b": 2}))),
    "same tool in another order": (reply(("f", {"a": 2}), ("f", {"a": 1})), gold(("f", {"a": 1}), ("f", {"a": 2}))),
    "prose with Action:": ("The Action: g would be wrong.\n" + reply(("f", {})), gold(("f", {}))),
    "thinking is not the answer": ("Action: g\nAction Input: {}\n</think>\n" + reply(("f", {})), gold(("f", {}))),
    "input over several lines": ('Action: f\nAction Input:\n{\n "a": [1,\n 2]}\nDone.', gold(("f", {"a": [1, 2]}))),
    "in a fence": ('Action: f\nAction Input: ```json\n{"a": 1}\n```', gold(("f", {"a": 1}))),
    "words behind": (reply(("f", '{"a": 1} as asked\nObservation: {"b": 2}')), gold(("f", {"a": 1}))),
    "optional call left out": (reply(("f", {})), gold(("f", {}), ("[Optional]g", {"a": 1}))),
    "optional call made": (reply(("f", {}), ("g", {"a": 1})), gold(("f", {}), ("[Optional]g", {"a": 1}))),
}
FALSE_CASES = {
    "malformed against {}": ("Action: f\nAction Input: {oops", gold(("f", {}))),
    "no input against {}": ("Action: f", gold(("f", {}))),
    "list against {}": (reply(("f", "[]")), gold(("f", {}))),
    "inputs swapped": (reply(("f", {"b": 2}), ("g", {"a": 1})), gold(("f", {"a": 1}), ("g", {"b": 2}))),
    "inputs merged": (reply(("f", {"a": 1, "b": 2}), ("g", {})), gold(("f", {"a": 1}), ("g", {"b": 2}))),
    "true against 1": (reply(("f", '{"a": true}')), gold(("f", {"a": 1}))),
    "1 against true": (reply(("f", {"a": 1})), gold(("f", {"a": True}))),
    "string against number": (reply(("f", {"a": "1"})), gold(("f", {"a": 1}))),
    "nested true against 1": (reply(("f", '{"a": [{"b": true}]}')), gold(("f", {"a": [{"b": 1}]}))),
    "extra call": (reply(("f", {"a": 1}), ("f", {"a": 1})), gold(("f", {"a": 1}))),
    "missing call": (reply(("f", {"a": 1})), gold(("f", {"a": 1}), ("f", {"a": 1}))),
    "tools in the wrong order": (reply(("g", {}), ("f", {})), gold(("f", {}), ("g", {}))),
    "prose only": ("I would use Action: f with Action Input: {}", gold(("f", {}))),
    "duplicate key": (reply(("f", '{"a": 2, "a": 1}')), gold(("f", {"a": 1}))),
    "NaN": (reply(("f", '{"a": NaN}')), gold(("f", {"a": 1}))),
    "1e999": (reply(("f", '{"a": 1e999}')), gold(("f", {"a": 1}))),
    "5000 digits": (reply(("f", '{"a": %s}' % ("9" * 5000))), gold(("f", {"a": 1}))),
    "100,000 brackets": (reply(("f", '{"a": ' + "[" * 100_000)), gold(("f", {"a": 1}))),
    "300 brackets": (reply(("f", '{"a": ' + "[" * 300 + "]" * 300 + "}")), gold(("f", {"a": 1}))),
    "extra argument": (reply(("f", {"a": 1, "b": ""})), gold(("f", {"a": 1}))),
    "a second object": (reply(("f", '{"a": 1} or {"a": 2}')), gold(("f", {"a": 1}))),
    "a second object at once": (reply(("f", '{"a": 1}{"a": 2}')), gold(("f", {"a": 1}))),
    "a second input": (reply(("f", '{"a": 1}\nAction Input: {"a": 2}')), gold(("f", {"a": 1}))),
    "name prefix": (reply(("ff", {})), gold(("f", {}))),
    "only the optional call": (reply(("g", {"a": 1})), gold(("f", {}), ("[Optional]g", {"a": 1}))),
    "second block malformed": (reply(("f", {"a": 1})) + "\nAction: g\nAction Input: {", gold(("f", {"a": 1}))),
}


@pytest.mark.parametrize("name", TRUE_CASES)
def test_right(name):
    assert score(*TRUE_CASES[name]) == 1.0


@pytest.mark.parametrize("name", FALSE_CASES)
def test_wrong(name):
    assert score(*FALSE_CASES[name]) == 0.0


@pytest.mark.parametrize(
    ("solution", "answer", "expected"),
    [
        (reply(("f", {"a": 1})), gold(("f", {"a": 1})), 1.0),
        (reply(NESTED), gold(NESTED), 0.0),  # shortest match: nested braces fail
        (reply(("f", {"b": 2}), ("g", {"a": 1})), gold(("f", {"a": 1}), ("g", {"b": 2})), 1.0),  # swapped inputs merge
        (reply(("g", {}), ("f", {})), gold(("f", {}), ("g", {})), 1.0),  # a multiset
        (reply(("f", {}), ("f", {})), gold(("f", {})), 0.0),
        ("Action: f\nAction Input: {oops}", gold(("f", {})), 1.0),  # malformed input counts as empty
        ("Action: a.b\nAction Input: {}", gold(("a.b", {})), 0.0),  # \w+ stops at the dot
        (reply(("f", '{"a": true}')), gold(("f", {"a": 1})), 1.0),  # Python's True == 1
    ],
)
def test_paper_mode_has_the_quirks_of_sdpo(solution, answer, expected):
    assert score(solution, answer, mode="paper") == expected


@pytest.mark.parametrize("bad", ["[]", "", "{", '[{"Action": "f"}]', '[{"Action": "f", "Action_Input": "[1]"}]'])
def test_unusable_gold_is_never_a_pass(bad):
    result = compute_score("tooluse", "nothing", bad)
    assert (result["score"], result["infra_error"]) == (0.0, 1.0)


def test_feedback_says_what_to_change_without_the_gold_value():
    feedback = compute_score("tooluse", reply(("f", {"city": "x"})), gold(("f", {"city": "SECRET"})))["feedback"]
    assert "city" in feedback
    assert "SECRET" not in feedback
    assert "wrong tool" in compute_score("tooluse", reply(("g", {})), gold(("f", {})))["feedback"]


def test_every_published_gold_answer_scores_and_a_changed_one_does_not(published_rows):
    items = published_rows("tooluse/sample.json")
    assert len(items) == 34
    for row in items:
        calls = [(call["Action"], call["Action_Input"]) for call in json.loads(row["answer"])]
        assert score(reply(*calls), row["answer"]) == 1.0, row["answer"]
        name, arguments = calls[0]
        changed = json.dumps({**json.loads(arguments), "unasked": 1})
        assert score(reply((name, changed), *calls[1:]), row["answer"]) == 0.0
        assert score(reply(("x" + name, arguments), *calls[1:]), row["answer"]) == 0.0
        assert score(reply(*calls, calls[-1]), row["answer"]) == 0.0
        assert score("", row["answer"]) == 0.0
