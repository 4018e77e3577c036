"""The door: what can be registered, what is refused, and which name an error has."""

import functools
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl import built_in, register, variants
from srpo_verl.config import SRPOConfig, TeacherConfig, settings
from srpo_verl.core import route
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.variants import VariantError


def rows(*scores, **others):
    return [Rollout(f"x_{n}_0", float(score), 5, **others) for n, score in enumerate(scores)]


def named(kind, function, request):
    """Register under a name of this test's own."""
    name = f"{kind} of {request.node.name}"
    getattr(register, kind)(name)(function)
    return name


def test_our_own_are_registered_like_all_others():
    assert variants.names("route")[:4] == ["incorrect", "correct", "all", "none"]
    assert variants.names("provider")[:2] == ["sibling", "feedback"]
    assert variants.names("teacher")[:4] == ["ema", "frozen", "live", "trust_region"]
    assert all(variant.built_in for variant in SRPOConfig().named_variants())


def test_a_name_is_taken_once():
    register.route("taken")(lambda rollouts, available, srpo: ~rollouts.correct)
    with pytest.raises(VariantError, match=r"taken.*cannot be registered.*choose another name"):

        @register.route("taken")
        def other(rollouts, available, srpo):
            return rollouts.correct

    with pytest.raises(VariantError, match="choose another name"):

        @register.divergence("jsd")
        def mine(student, teacher, srpo):
            return student.sum(-1)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"route": "hopeful"}, "srpo.route='hopeful' is not one of incorrect"),
        ({"divergence": "x"}, "srpo.divergence='x' is not one of jsd"),
        ({"weighting": "x"}, "srpo.weighting='x' is not one of entropy"),
        ({"advantage": "x"}, "srpo.advantage='x' is not one of group_mean, leave_one_out"),
        ({"teacher": {"kind": "x"}}, "srpo.teacher.kind='x' is not one of ema"),
        ({"metrics": ["x"]}, "srpo.metrics='x' is not one of"),
        ({"providers": ["x"]}, "srpo.providers='x' is not one of sibling"),
        ({"providers": []}, "at least one provider"),
        ({"providers": ["sibling", "sibling"]}, "none twice"),
        (
            {"variant_modules": ["no_such_module"]},
            "importing no_such_module failed",
        ),
        ({"variant_modules": ["no_such_module"]}, "put the absolute path of the folder that it is in on PYTHONPATH"),
        ({"divergance": "jsd"}, "Key 'divergance' not in 'SRPOConfig'; did you mean divergence?"),
        ({"teacher": {"knd": "ema"}}, "did you mean kind?"),
        ({"teacher": {"template": "{prompt}"}}, "srpo.teacher.template must hold {information} once"),
        ({"teacher": {"sections": {"sibling": "x"}}}, "srpo.teacher.sections.sibling must hold {text} once"),
        ({"teacher": {"kind": "live", "path": "x"}}, "srpo.teacher.path"),
    ],
)
def test_wrong_names_are_refused_in_a_sentence(node, says):
    with pytest.raises(ValueError) as caught:
        settings(node)
    assert says in str(caught.value)


def test_a_module_of_variants_is_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "module_of_variants.py").write_text(
        "from srpo_verl import register\n@register.route('by module')\n"
        "def by_module(rollouts, available, srpo):\n    return rollouts.correct\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    srpo = settings({"variant_modules": ["module_of_variants"], "route": "by module"})
    assert srpo.variant("route").origin.startswith("module_of_variants:by_module, sha256 ")
    sys.modules.pop("module_of_variants")


def test_what_a_variant_raises_names_it(request):
    name = named("route", lambda rollouts, available, srpo: 1 / 0, request)
    with pytest.raises(VariantError, match=rf"srpo.route={name} .* failed: ZeroDivisionError"):
        build_plan(rows(0, 1), SRPOConfig(route=name))


@pytest.mark.parametrize(
    "share",
    [
        lambda rollouts: torch.full((len(rollouts),), 1.5),
        lambda rollouts: torch.full((len(rollouts),), -0.1),
        lambda rollouts: torch.full((len(rollouts),), float("nan")),
        lambda rollouts: torch.ones(len(rollouts) + 1),
        lambda rollouts: [True] * len(rollouts),
    ],
)
def test_a_hostile_route_is_refused(share):
    with pytest.raises(ValueError, match="a rule must give"):
        route(torch.tensor([0.0, 1.0]), ["x", "x"], rule=lambda rollouts, available: share(rollouts))


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (lambda n: torch.arange(n), "provider mine shows rollout 0 to itself"),
        (lambda n: torch.tensor([2, 2, -1]), "provider mine shows rollout 0 a rollout of another prompt"),
        (lambda n: torch.tensor([9, -1, -1]), "outside 0..2"),
        (lambda n: torch.tensor([-2, -1, -1]), "outside 0..2"),
        (lambda n: torch.tensor([1.0, -1.0, -1.0]), "must give int64"),
        (lambda n: torch.tensor([1, -1]), "must give int64"),
        (lambda n: "abc", "a sequence of 3 texts"),
        (lambda n: ["a", "b"], "a sequence of 3 texts"),
        (lambda n: ["a", 5, None], "the mine of rollout 1 is a int"),
        (lambda n: None, "a sequence of 3 texts"),
    ],
)
def test_a_hostile_provider_is_refused(shown, says):
    with pytest.raises(ValueError) as caught:
        route(torch.zeros(3), ["x", "x", "y"], providers={"mine": lambda rollouts: shown(len(rollouts))})
    assert says in str(caught.value)


def test_a_provider_cannot_show_an_answer_with_nothing_to_read():
    def hides_it(rollouts):
        rollouts.showable.fill_(True)
        return torch.tensor([1, -1])

    empty = torch.tensor([False, True])
    with pytest.raises(ValueError, match="provider mine shows rollout 0 one with nothing to read"):
        route(torch.tensor([0.0, 1.0]), ["x", "x"], providers={"mine": hides_it}, not_shown=empty)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from("ab"), st.booleans()), max_size=12),
    st.integers(0, 99),
)
def test_whatever_route_and_provider_say_excluded_rows_are_nowhere(batch, seed):
    """Any share for anybody, any sibling for anybody: without information no share, without a verdict no trace."""
    rng = torch.Generator().manual_seed(seed)
    sizes = []

    def anybody(rollouts):
        sizes.append(len(rollouts))
        pick = torch.full((len(rollouts),), -1)
        for row in range(len(rollouts)):
            others = [o for o in range(len(rollouts)) if o != row and rollouts.groups[o] == rollouts.groups[row]]
            if others and torch.rand(1, generator=rng) < 0.7:
                pick[row] = others[int(torch.randint(len(others), (1,), generator=rng))]
        return pick

    exclude = torch.tensor([row[2] for row in batch], dtype=torch.bool)
    routing = route(
        torch.tensor([row[0] for row in batch]),
        [row[1] for row in batch],
        rule=lambda rollouts, available: torch.rand(len(rollouts), generator=rng),
        providers={"anybody": anybody},
        exclude=exclude,
    )
    assert sizes == [int((~exclude).sum())]
    assert not routing.to_sdpo[exclude].any()
    assert (routing.demonstration[exclude] == -1).all()
    assert (routing.share[~routing.teacher_available] == 0).all()
    shown = routing.demonstration[routing.demonstration >= 0]
    assert not exclude[shown].any()
    for row, sibling in enumerate(routing.demonstration.tolist()):
        assert sibling != row
        assert sibling < 0 or batch[sibling][1] == batch[row][1]


def test_columns_reach_a_provider_and_its_text_the_prompt(request):
    name = named("provider", lambda rollouts, srpo: [row.get("hint") for row in rollouts.columns], request)
    srpo = SRPOConfig(providers=[name, "sibling"], teacher=TeacherConfig(sections={name: "[{text}]"}))
    rollouts = [
        Rollout("x_0_0", 0.0, 5, columns={"hint": "think twice"}),
        Rollout("x_1_0", 1.0, 5, columns={"hint": "  "}),
        Rollout("x_2_0", 0.0, 5, columns={}),
    ]
    plan = build_plan(rollouts, srpo)
    assert [plan.shown(row) for row in range(3)] == ["think twice", None, None]
    assert plan.routing.provider.tolist() == [0, -1, 1], "a blank text is none"
    assert plan.routing.demonstration.tolist() == [-1, -1, 1]
    assert srpo.sections()[name] == "[{text}]"


def test_what_a_function_does_to_what_it_is_given_reaches_nobody_else(request):
    """Groups made one, everybody made right: the checks and the next provider see what was there before."""

    def everybody_is_right(rollouts, srpo):
        rollouts.correct.fill_(True)
        return [None] * len(rollouts)

    def one_group(rollouts, srpo):
        rollouts.groups.zero_()
        return torch.tensor([2, 2, -1, -1])

    def all_right(rollouts, available, srpo):
        rollouts.correct.fill_(True)
        return ~rollouts.correct

    batch = [Rollout(f"{uid}_{n}_0", 0.0, 5) for uid in "ab" for n in range(2)]
    names = [named("provider", everybody_is_right, request), "sibling"]
    assert not build_plan(batch, SRPOConfig(providers=names)).routed.any()
    stranger = f"stranger of {request.node.name}"
    register.provider(stranger)(one_group)
    with pytest.raises(VariantError, match=rf"{stranger}.*a rollout of another prompt"):
        build_plan(batch, SRPOConfig(providers=[stranger]))
    plan = build_plan(batch, SRPOConfig(route=named("route", all_right, request)))
    assert not plan.routing.correct.any()


def test_ours_cannot_be_taken_over_by_a_copied_name():
    @functools.wraps(built_in.jsd)
    def mine(student, teacher, srpo):
        return built_in.jsd(student, teacher, srpo)

    with pytest.raises(VariantError, match="choose another name"):
        register.divergence("jsd")(mine)
    register.divergence("wrapped jsd")(mine)
    variant = variants.get("divergence", "wrapped jsd")
    assert not variant.built_in
    assert __name__ in variant.origin


def test_a_second_function_of_one_place_does_not_win_silently():
    register.divergence("twice")(lambda student, teacher, srpo: student.sum(-1))
    with pytest.raises(VariantError, match="choose another name"):
        register.divergence("twice")(lambda student, teacher, srpo: teacher.sum(-1))


def test_a_package_that_is_broken_stops_only_those_who_need_it(monkeypatch):
    monkeypatch.setattr(variants, "_failures", ["the entry point lab of lab 1.0: importing broken_lab failed"])
    assert settings({}).route == "incorrect"
    assert variants.failures() == ["the entry point lab of lab 1.0: importing broken_lab failed"]
    with pytest.raises(VariantError, match=r"srpo.divergence='lab' is not one of .*importing broken_lab failed"):
        settings({"divergence": "lab"})


def test_an_advantage_too_large_for_the_rewards_is_refused(request):
    name = named("advantage", lambda rewards, srpo: torch.full((len(rewards),), 1e300, dtype=torch.float64), request)
    srpo = SRPOConfig(route="none", policy_gradient="all", advantage=name)
    with pytest.raises(VariantError, match="finite numbers"):
        build_plan(rows(0, 1), srpo).advantages(torch.tensor([0.0, 1.0]), srpo, normalize_by_std=False)
