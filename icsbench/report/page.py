"""What every page has: one file with its styles, its script, and the policy that allows this script alone."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from icsbench import __version__
from icsbench.report.svg import Sheet
from icsbench.report.words import SYMBOLS

_HERE = Path(__file__).parent


def page_of(template: str, sheet: Sheet, filters: Mapping[str, Callable[..., Any]], **content: Any) -> bytes:
    """The page that a template of this folder makes of its content; texts in it stay texts."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"SYMBOLS": SYMBOLS}
    environment.filters |= filters
    script = _read("report.js") + _read("charts.js")
    html = environment.get_template(template).render(
        style=Markup(_read("report.css") + f"{sheet}\n"),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        versions={"icsbench": __version__, "matplotlib": matplotlib.__version__},
        **content,
    )
    return html.encode()


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
