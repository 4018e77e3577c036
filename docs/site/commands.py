"""The commands and options of `srpo` on docs/cli.md, out of the command line itself, when the site is built."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer

from workflows.cli import COMMANDS

PAGE, MARK = "docs/cli.md", "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page with every command in place of the mark."""
    if page.file.src_uri != PAGE:
        return markdown
    if MARK not in markdown:
        raise ValueError(f"{PAGE} must hold the line {MARK}")
    return markdown.replace(MARK, commands())


def commands() -> str:
    """Markdown: a section for each command, with a table of its arguments and options."""
    return "\n\n".join(_section(name) for name in COMMANDS)


def command(name: str) -> Any:
    """The click command behind `srpo NAME`."""
    return typer.main.get_command(import_module(COMMANDS[name][0]).app)


def _section(name: str) -> str:
    about = command(name)
    context = typer.Context(about, info_name=f"srpo {name}")
    usage = " ".join(about.collect_usage_pieces(context))
    rows = [_row(parameter) for parameter in about.params if not getattr(parameter, "hidden", False)]
    text = _plain(about.help or COMMANDS[name][1])
    table = ["| | default | |", "|---|---|---|", *rows] if rows else []
    return "\n".join([f"## srpo {name}", "", f"    srpo {name} {usage}", "", text, "", *table])


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
    default = parameter.default
    # Not given, a flag that is off, or drawn when the command runs.
    shown = "" if default is None or default is False or callable(default) or default == () else f"`{default}`"
    if parameter.required:
        shown = "needed"
    return f"| {', '.join(f'`{name}`' for name in names)} | {_cell(shown)} | {_cell(parameter.help or '')} |"


def _cell(text: str) -> str:
    return " ".join(_plain(text).split()).replace("|", r"\|")


def _plain(text: str) -> str:
    r"""Without click's marks for its own paragraphs (`\b`), and with angle brackets that are no HTML."""
    return text.replace("\b", "").replace("<", "&lt;").strip()
