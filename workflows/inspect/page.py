"""The page of one step: a template, the data as a block of JSON, and the scripts that draw it."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from srpo_verl.base.files import write_atomically
from workflows.inspect.dumped_steps import read_step


def build_page(run: Path, out: Path | None = None, *, step: int | None = None) -> Path:
    """Write the page of a dumped step of a run, the last by default, to `out`; returns where it is.

    Args:
        out: by default `step-<N>.html` in the run's folder.

    Raises:
        FileNotFoundError, ValueError: as `read_step`.
        OSError: the page cannot be written; an older one stays as it was.
    """
    data = read_step(run, step)
    path = out or run / f"step-{data['step']}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html_page(data, name=run.absolute().name))
    return path


def html_page(data: dict[str, Any], *, name: str) -> str:
    """One self-contained page; `name` is the run's. Nothing but our own scripts may run, and they set text only."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda file: _asset("inspect", file)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    # The report's script has the theme button, and looks for nothing else that this page has.
    scripts = [_asset("report", "page.js"), _asset("inspect", "recompute.js"), _asset("inspect", "page.js")]
    return environment.get_template("page.html.j2").render(
        title=f"Step {data['step']} of {name}",
        data=Markup(_json_in_html(data)),
        css=Markup(_asset("report", "page.css") + _asset("inspect", "page.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=Markup(" ".join(f"'{_hash(script)}'" for script in scripts)),
        settings=data["settings"],
        divergence=data["divergence"],
        shown=len(data["groups"]),
        groups=data["groups_in_batch"],
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
    )


def _json_in_html(data: Any) -> str:
    """JSON without the characters that could end its element or begin another one."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(package: str, name: str) -> str:
    return (resources.files(f"workflows.{package}") / name).read_text(encoding="utf-8")
