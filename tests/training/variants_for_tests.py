"""Variants for the worker's tests, found through `srpo.variant_modules`; some of them are hostile."""

from srpo_verl import register


@register.divergence("total variation")
def total_variation(student, teacher, srpo):
    return 0.5 * (student.exp() - teacher.exp()).abs().sum(-1)


@register.divergence("not a number")
def not_a_number(student, teacher, srpo):
    return (student - teacher).sum(-1) * float("nan")


@register.divergence("infinite slope")
def infinite_slope(student, teacher, srpo):
    """Zero in value, without end in slope."""
    return (student - student.detach()).sum(-1).abs().pow(0.5)


@register.divergence("one number")
def one_number(student, teacher, srpo):
    return (student - teacher).sum()


@register.divergence("constant")
def constant(student, teacher, srpo):
    return teacher.sum(-1)


@register.teacher("copies every second step")
def copies(teacher, actor, step, srpo):
    if step % 2 == 0:
        teacher.copy_(actor)


@register.teacher("poisoned")
def poisoned(teacher, actor, step, srpo):
    teacher.fill_(float("nan"))


register.teacher("far from the student", mix_logits=lambda teacher, student, srpo: 2 * teacher - student)(None)
register.teacher("half the logits", mix_logits=lambda teacher, student, srpo: teacher[:, :5])(None)
