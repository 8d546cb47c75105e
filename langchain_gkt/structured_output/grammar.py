"""Holds a student to a JSON schema, token by token, from any prefix.

The grammar engine is llguidance: it works on bytes, so that text from another tokenizer can
be its prefix, needs no second copy of torch's stack, and gives a mask in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

try:
    import llguidance
    import llguidance.hf
except ImportError as missing:
    raise ImportError(
        "structured output by the student needs llguidance; "
        'install it with: pip install "langchain-gkt[structured]"'
    ) from missing

# Room for a teacher's indents; unbounded blanks would let a small model write nothing else.
_COMPACT: Any = {"whitespace_pattern": r"[ \t\r\n]{0,32}"}
_BYTES = llguidance.LLTokenizer("byte")
_MOST_STEPS = 4096


def json_grammar(schema: dict[str, Any]) -> str:
    """Compile a JSON schema.

    Args:
        schema: A JSON schema; its root should be an object.

    Returns:
        A grammar for `Constraint` and `valid_prefix`.

    Raises:
        ValueError: If the schema is invalid or uses what cannot be enforced.
    """
    return _json_grammar(json.dumps(schema))


@lru_cache(maxsize=256)
def _json_grammar(schema: str) -> str:
    closed = _closed(json.loads(schema))
    grammar: str = llguidance.LLMatcher.grammar_from_json_schema(closed, defaults=_COMPACT)
    return _checked(grammar, "schema")


def _closed(schema: Any) -> Any:
    """Forbid properties that a schema does not name: a small model would invent some."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: {name: _closed(inner) for name, inner in value.items()}
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict)
        else _closed(value)
        if key in ("items", "prefixItems", "anyOf", "oneOf", "allOf")
        else value
        for key, value in schema.items()
    }
    if isinstance(schema.get("properties"), dict) and "allOf" not in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def tool_grammar(tools: Sequence[dict[str, Any]], name: str | None) -> str:
    """Compile the grammar of one tool call in the Hermes format.

    Args:
        tools: Tools in OpenAI's form.
        name: The tool that must be called, or None for any of them.

    Returns:
        A grammar.

    Raises:
        ValueError: If there is no such tool, or its parameters cannot be enforced.
    """
    functions = [tool["function"] for tool in tools]
    chosen = [function for function in functions if name in (None, function["name"])]
    if not chosen:
        known = ", ".join(function["name"] for function in functions)
        raise ValueError(f"tool_choice={name!r} is none of the bound tools ({known})")
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": _closed(
                    function.get("parameters") or {"type": "object", "properties": {}}
                ),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in chosen
    ]
    objects = [json.dumps({**call, "x-guidance": _COMPACT}) for call in calls]
    rules = [f"call{i}: %json {text}" for i, text in enumerate(objects)]
    either = " | ".join(f"call{i}" for i in range(len(rules)))
    start = 'start: "<tool_call>\\n" call "\\n</tool_call>"'
    lark = "\n".join([start, f"call: {either}", *rules])
    return _checked(llguidance.LLMatcher.grammar_from_lark(lark), "tools")


def _checked(grammar: str, field: str) -> str:
    wrong, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, _BYTES)
    if wrong:
        raise ValueError(
            f"{field} cannot be enforced: {'; '.join(messages)}. Change the {field}, or have the "
            "teacher alone write the answer: method='function_calling'"
        )
    return grammar


def valid_prefix(text: str, grammar: str) -> tuple[str, bool]:
    """Return the longest beginning of a text that a grammar allows.

    Args:
        text: Any text.
        grammar: A compiled grammar.

    Returns:
        That beginning, and whether it is a whole text of the grammar.
    """
    matcher = llguidance.LLMatcher(_BYTES, grammar)
    data = text.encode()
    taken = matcher.try_consume_tokens(list(data))
    return data[:taken].decode(errors="ignore"), bool(matcher.is_accepting())


class Vocabulary:
    """What the grammar engine knows of one tokenizer; costly to make, made once."""

    def __init__(self, tokenizer: Any, end_ids: set[int], size: int) -> None:
        """Read a tokenizer.

        Args:
            tokenizer: A fast Hugging Face tokenizer.
            end_ids: Ids that end an answer.
            size: Length of the model's logits.

        Raises:
            ValueError: If the grammar engine cannot read the tokenizer, or nothing ends it.
        """
        if not end_ids:
            raise ValueError("the student has no end token; structured output needs one")
        try:
            self.tokens = llguidance.hf.from_tokenizer(
                tokenizer, n_vocab=size, eos_token=sorted(end_ids)
            )
        except ValueError as error:
            raise ValueError(
                f"the student's tokenizer cannot be held to a grammar: {error}"
            ) from error
        self.end_ids, self.size = end_ids, size
        data = [self.tokens.decode_bytes([token]) for token in range(size)]
        ranked = sorted(range(size), key=lambda token: self._rank(token, data[token]))
        self._order = np.empty(size, dtype=np.int64)
        self._order[ranked] = np.arange(size)
        self._closers = [data.index(mark) for mark in (b"}", b"]") if mark in data]
        self._quotes = [token for token in ranked if data[token][:1] == b'"']

    def __deepcopy__(self, memo: dict[int, Any]) -> Vocabulary:
        """Share what never changes."""
        return self

    def _rank(self, token: int, data: bytes) -> tuple[int, int]:
        """Order tokens by how soon they bring a JSON text to its end."""
        if token in self.end_ids:
            return (-1, 0)
        if not data or data.isspace() or self.tokens.is_special_token(token):
            return (6, 0)
        if not data.strip(b'"}]'):
            return (0 if data[:1] in b"}]" else 1, -len(data))
        if not data.strip(b'"}],:'):
            return (2, -len(data))
        if b"{" in data or b"[" in data or b"," in data:
            return (5, len(data))
        # Only reached where text is forced: names of properties, values of an enum.
        return (4 if data[:1].isspace() else 3, -len(data))

    def allowed(self, matcher: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which tokens may follow, shape (size,)."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)

    def shortest_end(self, matcher: Any) -> list[int] | None:
        """Return tokens that bring a text to its end, few rather than many.

        Args:
            matcher: The text's state; it is left as it is.

        Returns:
            Token ids, or None where no end was found in 4,096 steps.
        """
        trial = matcher.deep_copy()
        path: list[int] = []
        while not (trial.is_accepting() or trial.is_stopped()):
            allowed = self.allowed(trial)
            if len(path) == _MOST_STEPS or not allowed.any():
                return None
            path.append(self._soonest(allowed))
            trial.consume_token(path[-1])
        return path

    def _soonest(self, allowed: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
        # Where both an object and an array could be closed, the marks are text in a string.
        if all(allowed[token] for token in self._closers):
            for token in self._quotes:
                if allowed[token]:
                    return token
        which = np.flatnonzero(allowed)
        return int(which[self._order[which].argmin()])


@lru_cache(maxsize=256)
def shortest_answer(vocabulary: Vocabulary, grammar: str) -> int:
    """Return how many tokens the shortest text of a grammar takes; 0 where that is not known.

    Args:
        vocabulary: The student's.
        grammar: A compiled grammar.
    """
    return len(vocabulary.shortest_end(llguidance.LLMatcher(vocabulary.tokens, grammar)) or ())


class Constraint:
    """Holds one answer to a grammar, and has it end within its tokens."""

    def __init__(
        self, vocabulary: Vocabulary, grammar: str, *, begun: str, max_tokens: int
    ) -> None:
        """Begin where a prefix ends.

        Args:
            vocabulary: The student's.
            grammar: A compiled grammar.
            begun: The part of the answer that is already written.
            max_tokens: Tokens that are left for the rest. A prefix whose shortest end takes
                more gets those: see the attribute of that name.

        Raises:
            ValueError: If the prefix breaks the grammar, or nothing that has no prefix fits.
        """
        self._vocabulary, self._left = vocabulary, max_tokens
        self._matcher = llguidance.LLMatcher(vocabulary.tokens, grammar)
        if error := self._matcher.get_error():
            raise ValueError(f"the grammar cannot be used: {error}")
        ids = vocabulary.tokens.tokenize_bytes(begun.encode())
        if self._matcher.try_consume_tokens(ids) != len(ids):
            fits, _ = valid_prefix(begun, grammar)
            raise ValueError(
                f"the answer's beginning breaks the schema after {fits[-30:]!r}; it begins "
                f"{begun[:60]!r}"
            )
        end = vocabulary.shortest_end(self._matcher)
        if end is not None and len(end) > max_tokens and begun:
            # Another has begun it: a few tokens too many are better than half an object.
            self._left = max_tokens = len(end)
        self.max_tokens = max_tokens
        if end is not None and len(end) > max_tokens:
            raise ValueError(
                f"max_tokens leaves {max_tokens} tokens, but the shortest answer of this schema "
                f"takes {len(end)} more; raise max_tokens"
            )
        self._needed, self._since = len(end or ()), 0
        # No token can open more than the grammar's own text spells out.
        self._jump = len(vocabulary.tokens.tokenize_str(grammar))

    @property
    def done(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def choose(self, logits: torch.Tensor, pick: Callable[[torch.Tensor], int]) -> int:
        """Choose the next token among those the grammar allows.

        Args:
            logits: Shape (vocabulary,).
            pick: The sampler.

        Returns:
            The token: the sampler's, or the next on the way to the end where the sampler's
            would leave too few tokens to get there.
        """
        allowed = torch.from_numpy(self._vocabulary.allowed(self._matcher)).to(logits.device)
        token = pick(logits.masked_fill(~allowed, -torch.inf))
        self._left -= 1
        self._since += 1
        if self._left < self._needed + self._jump * self._since:
            trial = self._matcher.deep_copy()
            trial.consume_token(token)
            end = self._vocabulary.shortest_end(trial)
            if end is not None and len(end) > self._left:
                way = self._vocabulary.shortest_end(self._matcher)
                if way:
                    token, end = way[0], way[1:]
                else:
                    token, end = min(self._vocabulary.end_ids), []
            self._needed, self._since = len(end or ()), 0
        self._matcher.consume_token(token)
        return token
