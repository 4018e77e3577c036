"""Imported by the fork server: parses a few expressions, so that no worker pays for the parser's first steps."""

from reward_fns.mathlayer.compare import compare

for _gold, _pred in (
    (r"\frac{\sqrt{2}}{2}+x^2", r"x^2+1/\sqrt{2}"),
    (r"\{1,\sin(\pi/3)\}", r"1, \cos 30^\circ"),
    (r"y=2x+3", r"2x-y+3=0"),
    (r"(\log_2 3, \infty)", r"x>\log_2 3"),
):
    compare(_gold, _pred)
