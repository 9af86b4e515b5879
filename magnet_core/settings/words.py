"""What a setting may be, in words: its kind, or its limits where a value lies outside of them."""

import typing
from collections.abc import Mapping
from typing import Any, Literal

from pydantic.fields import FieldInfo

_LIMITS = {"ge": "greater_than_equal", "gt": "greater_than", "le": "less_than_equal", "lt": "less_than"}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "Path": "a path"}


def in_words(field: FieldInfo, fault: str) -> str:
    """Say what a setting may be: its own description, its limits where it has some, or its kind."""
    if field.description:
        return field.description
    kind: Any = field.annotation
    limits = {name: getattr(limit, name) for limit in field.metadata for name in _LIMITS if hasattr(limit, name)}
    if fault in _LIMITS.values() or (fault == "finite_number" and len(limits) > 1):
        return _limits_in_words(limits)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return 'a list, such as ["one", "two"]'
    words = _KINDS.get(getattr(kind, "__name__", ""), str(kind))
    return "a finite number" if fault == "finite_number" else words


def _limits_in_words(limits: Mapping[str, float]) -> str:
    low, over = limits.get("gt", limits.get("ge")), "gt" in limits
    high, under = limits.get("lt", limits.get("le")), "lt" in limits
    if low is None:
        assert high is not None  # one of them is there
        return f"below {_digits(high)}" if under else f"at most {_digits(high)}"
    if high is not None and not over and not under:
        return f"{_digits(low)} to {_digits(high)}"
    least = f"{_digits(low)} or more" if not over else f"more than {_digits(low)}" if low else "a positive number"
    if high is None:
        return least
    return f"{least}, below {_digits(high)}" if under else f"{least}, at most {_digits(high)}"


def _digits(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) and limit >= 10_000 else f"{limit:g}"
