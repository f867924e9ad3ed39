"""JSON that every parser reads: numbers that are not finite, for which it has no token, are written as text."""

import json
import math
from typing import Any

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(content: Any, **options: Any) -> str:
    """``json.dumps``, with NaN and the infinities as the texts ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``."""
    try:
        return json.dumps(content, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_as_text(content), allow_nan=False, **options)


def loads(text: str) -> Any:
    """The content that :func:`dumps` was given; the bare tokens of earlier versions, such as ``NaN``, are read as well.

    :raises ValueError: the text is not JSON.
    """
    content = json.loads(text)
    return _as_numbers(content) if any(f'"{name}"' in text for name in _NOT_FINITE) else content


def _as_text(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _as_text(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_as_text(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return "NaN" if math.isnan(content) else "Infinity" if content > 0 else "-Infinity"
    return content


def _as_numbers(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _as_numbers(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_as_numbers(value) for value in content]
    return _NOT_FINITE.get(content, content) if isinstance(content, str) else content
