"""JSON schemas that no value can satisfy, because each part of them needs itself."""

from __future__ import annotations

import itertools
from typing import Any

from langchain_gkt.serving.api.fields import FieldError
from langchain_gkt.structured_output.schema import target_of

_MOST_PARTS = 100_000


def refuse_endless(schema: dict[str, Any], field: str) -> None:
    """Refuse a field's schema whose values would have no end, before anybody is paid.

    Also one with too many parts to check. Raises a `FieldError`.
    """
    ending: set[str] = set()  # references that end are followed once
    parts = itertools.count(1)

    def has_end(part: Any, open_refs: tuple[str, ...]) -> bool:
        """Whether some value of a part ends, without the references that led here."""
        if next(parts) > _MOST_PARTS:
            raise FieldError(field, ": the schema has too many parts; send a smaller one")
        if not isinstance(part, dict):
            return part is not False
        ref: Any = part.get("$ref")
        is_inner = isinstance(ref, str) and (ref == "#" or ref.startswith("#/"))
        if is_inner and ref not in ending:
            if ref in open_refs or not has_end(target_of(ref, schema), (*open_refs, ref)):
                return False
            ending.add(ref)
        for name in ("anyOf", "oneOf"):
            options = part.get(name)
            if isinstance(options, list) and not any(has_end(o, open_refs) for o in options):
                return False
        whole = part.get("allOf")
        needed = list(whole) if isinstance(whole, list) else []
        properties, required = part.get("properties"), part.get("required")
        if isinstance(properties, dict) and isinstance(required, list):
            needed += [properties[n] for n in required if isinstance(n, str) and n in properties]
        if part.get("minItems"):
            needed.append(part.get("items"))
        return all(has_end(inner, open_refs) for inner in needed)

    if not has_end(schema, ()):
        raise FieldError(
            field,
            ": no value can satisfy this schema, because it refers to itself without an "
            "end; give it one (null, an empty list, a property that may be left out)",
        )
