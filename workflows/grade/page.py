"""The verdicts as one HTML page that works offline: a summary, and every completion to read. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment

from workflows.grade.verdicts import Graded, summary

_MOST_TEXT = 6000  # characters of a completion; its end is what is graded

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid #8884; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8881; padding: .6rem; font-size: .85rem; }
.right { color: #00806a; } .wrong { color: #c04a00; }
details { margin: .4rem 0; } summary { cursor: pointer; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ rows | length }} completions; {{ disputed }} of them are judged differently by two graders{% if marked %}
or by the file{% endif %}. A grader without a verdict was not asked, or could not decide.</p>
<table>
<thead><tr><th scope="col">grader</th>
<th scope="col">right</th><th scope="col">wrong</th><th scope="col">no verdict</th>
<th scope="col">unlike the first</th>{% if marked %}<th scope="col">unlike the file</th>{% endif %}</tr></thead>
<tbody>{% for row in totals %}<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] if cell is not none %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table>
{% for heading, some in parts if some %}
<h2>{{ heading }} ({{ some | length }})</h2>
{% for number, row in some %}
<details><summary>{{ number }} &middot; {{ row.completion.source }}
{% if row.completion.note %}&middot; {{ row.completion.note }}{% endif %}
{% for name, verdict in row.verdicts.items() %}&middot; {{ name }}
<span class="{{ verdict.word }}">{{ verdict.word }}</span> {% endfor %}
{% if row.completion.expected is not none %}&middot; expected {{ row.completion.expected }}{% endif %}</summary>
<table><tbody>
<tr><th scope="row">gold</th><td><pre>{{ (row.completion.gold | string)[:2000] }}</pre></td></tr>
{% for name, verdict in row.verdicts.items() if verdict.pred or verdict.reason %}
<tr><th scope="row">{{ name }}</th><td>{% if verdict.pred %}read: <code>{{ verdict.pred[:500] }}</code><br>{% endif %}
{{ verdict.reason[:1000] }}</td></tr>{% endfor %}
</tbody></table>
<pre>{{ row.completion.solution[-most:] }}</pre>
</details>
{% endfor %}{% endfor %}
</body>
</html>
"""


def page(graded: Sequence[Graded], title: str) -> str:
    """The page's text."""
    numbered = list(enumerate(graded, 1))
    parts = [
        ("Judged differently", [pair for pair in numbered if pair[1].disputed]),
        ("Judged alike", [pair for pair in numbered if not pair[1].disputed]),
    ]
    environment = Environment(autoescape=True, trim_blocks=True)
    text = environment.from_string(_TEMPLATE).render(
        title=title, rows=graded, totals=summary(graded), parts=parts, most=_MOST_TEXT, disputed=len(parts[0][1]),
        marked=any(row.completion.expected is not None for row in graded),
    )  # fmt: skip
    return text.encode("utf-8", "replace").decode("utf-8")
