"""The one way to declare a configuration: frozen, typed, validated, and JSON both ways."""

import difflib
import json
from functools import cache
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from equiscale.errors import InputError

T = TypeVar("T")

FIELDS: dict[str, Any] = {}
"""Names of every config's fields, to name the nearest to a misspelt one."""


@dataclass_transform(frozen_default=True, kw_only_default=False)
def config(cls: type[T]) -> type[T]:
    """A frozen dataclass that rejects unknown fields and wrong types when it is made or loaded."""
    return _declared(cls, slots=False)


@dataclass_transform(frozen_default=True, kw_only_default=False)
def config_of_many(cls: type[T]) -> type[T]:
    """As ``config``, for what a run holds dozens of: without a dictionary each, a record takes two thirds of the
    memory, and its numbers are read sooner."""
    return _declared(cls, slots=True)


def _declared(cls: type[T], slots: bool) -> type[T]:
    FIELDS.update(cls.__annotations__)
    # NaN and infinities are written as such: a diverged run's losses must come back as what they were, not as null.
    rules = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")
    return dataclass(frozen=True, slots=slots, config=rules)(cls)  # type: ignore[return-value]


def later(default: Any) -> Any:
    """A field that joined after results were published: left out of JSON while it has its default, so that a spec
    from before keeps its content hash, and its results their names."""
    return Field(default=default, exclude_if=lambda value: value == default)


def explain(error: ValidationError, what: str) -> InputError:
    """One sentence for the first thing that is wrong in ``what``, naming the nearest field for a misspelt one."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the top level"
    more = f" ({error.error_count() - 1} more problems follow)" if error.error_count() > 1 else ""
    if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return InputError(f"{what}: {where!r} is not a field{nearest(str(first['loc'][-1]), list(FIELDS))}{more}.")
    if isinstance(said := first.get("ctx", {}).get("error"), InputError):  # a config's own sentence
        return InputError(f"{what}: {said}")
    return InputError(f"{what}: {where} — {first['msg'].lower()} (got {first.get('input')!r}){more}.")


def nearest(name: str, known: list[str]) -> str:
    """`` (did you mean 'x'?)`` where a known name is close to ``name``, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


_adapter = cache(TypeAdapter)


def to_json(kind: Any, value: Any, indent: int | None = 1) -> bytes:
    return _adapter(kind).dump_json(value, indent=indent)


def from_json(kind: Any, text: bytes | str, what: str) -> Any:
    """Parse JSON into a config; raises InputError that names ``what`` and the field."""
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise explain(error, what) from None


def canonical(kind: Any, value: Any) -> str:
    """JSON with sorted keys and no blanks: what content hashes are taken of."""
    return json.dumps(_adapter(kind).dump_python(value, mode="json"), sort_keys=True, separators=(",", ":"))
