"""JSON schemas that no value can satisfy, because each part of them needs itself."""

from __future__ import annotations

from typing import Any

from langchain_gkt.serving.api.fields import FieldError
from langchain_gkt.structured_output.schema import target_of

_MOST_PARTS = 100_000


def refuse_endless(schema: dict[str, Any], field: str) -> None:
    """Refuse a field's schema whose values would have no end, before anybody is paid.

    Also one with too many parts to check. Raises a `FieldError`.
    """
    if not _Endings(schema, field).has_end(schema, ()):
        raise FieldError(
            field,
            ": no value can satisfy this schema, because it refers to itself without an "
            "end; give it one (null, an empty list, a property that may be left out)",
        )


class _Endings:
    """Searches one schema. Each reference that ends is followed once."""

    def __init__(self, root: dict[str, Any], field: str) -> None:
        self._root, self._field = root, field
        self._ending: set[str] = set()
        self._parts = 0

    def has_end(self, schema: Any, open_refs: tuple[str, ...]) -> bool:
        """Whether some value of a schema ends, without the references that led here."""
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise FieldError(self._field, ": the schema has too many parts; send a smaller one")
        if not isinstance(schema, dict):
            return schema is not False
        ref = schema.get("$ref")
        is_inner = isinstance(ref, str) and (ref == "#" or ref.startswith("#/"))
        if is_inner and not self._ref_ends(ref, open_refs):
            return False
        for name in ("anyOf", "oneOf"):
            options = schema.get(name)
            if isinstance(options, list) and not any(self.has_end(o, open_refs) for o in options):
                return False
        whole = schema.get("allOf")
        needed = list(whole) if isinstance(whole, list) else []
        properties, required = schema.get("properties"), schema.get("required")
        if isinstance(properties, dict) and isinstance(required, list):
            needed += [properties[n] for n in required if isinstance(n, str) and n in properties]
        if schema.get("minItems"):
            needed.append(schema.get("items"))
        return all(self.has_end(part, open_refs) for part in needed)

    def _ref_ends(self, ref: Any, open_refs: tuple[str, ...]) -> bool:
        if ref in self._ending:
            return True
        if ref in open_refs:
            return False
        ends = self.has_end(target_of(ref, self._root), (*open_refs, ref))
        if ends:
            self._ending.add(ref)
        return ends
