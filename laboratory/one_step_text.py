"""The numbers of one step as text, in the order in which a step makes them."""

from __future__ import annotations

from laboratory.one_group import OneStep, RoutedRow


def told(step: OneStep) -> str:
    """Sections that begin with `== name`."""
    sections = {
        "prompt": step.question,
        "answers": _answers(step),
        "routes": _routes(step),
        "teacher prompt": step.teacher_prompts[step.routed[0].row],
        "tokens": _tokens(step, step.routed[0]),
        "top K": _top_k(step, step.routed[0]),
        "weights": _weights(step),
        "loss": _loss(step),
    }
    return "\n".join(f"== {name}\n{text.rstrip()}\n" for name, text in sections.items())


def widest(routed: RoutedRow) -> int:
    """The position of the largest divergence."""
    return int(routed.divergence.argmax())


def _answers(step: OneStep) -> str:
    lines = []
    for row, response in enumerate(step.responses):
        verdict = "right" if step.plan.routing.correct[row] else "wrong"
        lines.append(f"{row}  {verdict}  {len(response)} tokens  {step.text(row)!r}")
    return "\n".join(lines)


def _routes(step: OneStep) -> str:
    lines = ["answer  score  advantage  branch  shown"]
    for row, rollout in enumerate(step.plan.rollouts):
        routed = bool(step.plan.routed[row])
        sibling = f"answer {int(step.plan.routing.demonstration[row])}" if routed else "-"
        branch = "SDPO" if routed else "GRPO"
        lines.append(f"{row:6d}  {rollout.score:5.0f}  {step.advantages[row]:+9.2f}  {branch:6}  {sibling}")
    return "\n".join(lines)


def _tokens(step: OneStep, routed: RoutedRow) -> str:
    lines = ["token   divergence  entropy  weight  importance  product"]
    products = routed.divergence * routed.weight * routed.importance
    for i, piece in enumerate(step.pieces(step.responses[routed.row])):
        lines.append(
            f"{piece:6}  {routed.divergence[i]:10.4f}  {routed.entropy[i]:7.4f}  {routed.weight[i]:6.4f}  "
            f"{routed.importance[i]:10.4f}  {products[i]:7.4f}"
        )
    lines.append(f"sum     {routed.divergence.sum():10.4f}  {'':7}  {'':6}  {'':10}  {products.sum():7.4f}")
    return "\n".join(lines)


def _top_k(step: OneStep, routed: RoutedRow) -> str:
    at = widest(routed)
    before = step.tokenizer.decode(step.responses[routed.row][:at])
    lines = [f"after {before!r}", "token   student  teacher"]
    for piece, own, other in zip(
        step.pieces(routed.ids[at]), routed.student[at].tolist(), routed.teacher[at].tolist(), strict=True
    ):
        lines.append(f"{piece:6}  {own:7.4f}  {other:7.4f}")
    lines.append(f"others  {1 - routed.student[at].sum():7.4f}  {1 - routed.teacher[at].sum():7.4f}")
    return "\n".join(lines)


def _weights(step: OneStep) -> str:
    lines = ["answer  tokens  sum of weights  largest  smallest"]
    total = 0.0
    for routed in step.routed:
        total += float(routed.weight.sum())
        lines.append(
            f"{routed.row:6d}  {len(routed.weight):6d}  {routed.weight.sum():14.3f}  {routed.weight.max():7.3f}  "
            f"{routed.weight.min():8.3f}"
        )
    count = sum(len(routed.weight) for routed in step.routed)
    lines.append(f"   all  {count:6d}  {total:14.3f}  mean {total / count:.3f}")
    return "\n".join(lines)


def _loss(step: OneStep) -> str:
    lines = ["answer  branch  tokens  sum over its tokens"]
    routed = {row.row: row for row in step.routed}
    total = 0.0
    for row, response in enumerate(step.responses):
        if row in routed:
            found = routed[row]
            value = float((found.divergence * found.weight * found.importance).sum())
        else:
            value = step.policy_gradient(row)
        total += value
        lines.append(f"{row:6d}  {'SDPO' if row in routed else 'GRPO':6}  {len(response):6d}  {value:+.4f}")
    count = sum(len(response) for response in step.responses)
    lines += [f"   all          {count:6d}  {total:+.4f}", f"{total:+.4f} / {count} = {total / count:+.4f}"]
    lines.append(f"the loss that is trained on: {step.loss:+.4f}")
    return "\n".join(lines)
