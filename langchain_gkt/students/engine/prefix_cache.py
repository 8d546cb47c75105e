"""Keys and values of prompts that have been seen, for those that begin alike.

A radix tree over token ids: what prompts share is held once. Not safe for several threads;
the worker owns it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import torch

from langchain_gkt.students.engine.kv_cache import KeyValues, Segment
from langchain_gkt.students.engine.shared_prefix import Trunk

# Shorter runs are not worth a branch of their own, nor an attention call of their own.
_WORTH_SHARING = 32


@dataclass(eq=False)
class _Node:
    ids: tuple[int, ...]
    segment: Segment
    parent: _Node | None
    children: dict[int, _Node] = field(default_factory=dict)
    used: int = 0
    ahead: bool = False

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.segment)


@dataclass(frozen=True, kw_only=True)
class Match:
    """The longest known beginning of some ids.

    Attributes:
        length: How many of the ids are known.
        segments: Their keys and values, one after the other.
        shared: The branches at the front that other prompts begin with too, for `trunk`.
    """

    length: int
    segments: list[Segment]
    shared: tuple[_Node, ...]


class PrefixCache:
    """Keys and values by token ids; least recently used out."""

    def __init__(self, max_bytes: int) -> None:
        """Begin empty.

        Args:
            max_bytes: Most bytes of keys and values to hold; 0 to hold none.
        """
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._root = _Node(ids=(), segment=[], parent=None)
        self._clock = itertools.count(1)
        self._trunks: WeakValueDictionary[_Node, Trunk] = WeakValueDictionary()

    def match(self, ids: Sequence[int]) -> Match:
        """Look ids up.

        Args:
            ids: A prompt, with the beginning of the answer if there is one.

        Returns:
            What is known of all but the last id, whose logits are wanted anyway.
        """
        ids = tuple(ids[:-1])
        length, segments, path = 0, [], []
        node = self._root
        while child := node.children.get(ids[length]) if length < len(ids) else None:
            same = common(child.ids, ids[length:])
            if same < len(child.ids) and same >= _WORTH_SHARING:
                child = self._split(child, same)
            child.used = next(self._clock)
            segments.append([(k[:, :same], v[:, :same]) for k, v in child.segment])
            length += same
            if same < len(child.ids):
                break
            path.append(child)
            node = child
        return Match(length=length, segments=segments, shared=_shared(path))

    def insert(self, ids: Sequence[int], held: KeyValues, *, ahead: bool = False) -> None:
        """Remember ids.

        Args:
            ids: A prompt.
            held: Keys and values of at least these ids.
            ahead: Whether no request has come yet: then `remove` frees what is new of them.
        """
        node, at = self._root, 0
        while child := node.children.get(ids[at]) if at < len(ids) else None:
            same = common(child.ids, ids[at:])
            if same < len(child.ids):
                if at + same == len(ids):
                    return
                child = self._split(child, same)
            at += same
            child.used = next(self._clock)
            child.ahead &= ahead
            node = child
        if at == len(ids):
            return
        segment = held.segment(at, len(ids))
        nbytes = sum(keys.nbytes + values.nbytes for keys, values in segment)
        if nbytes > self.max_bytes:
            return
        leaf = _Node(tuple(ids[at:]), _copied(segment), node, used=next(self._clock), ahead=ahead)
        node.children[ids[at]] = leaf
        self.nbytes += nbytes
        self._evict()

    def remove(self, ids: Sequence[int]) -> None:
        """Forget what was remembered ahead for these ids, and what nobody else has needed of it.

        Args:
            ids: A prompt, or the beginning of one.
        """
        path, node, at = list[_Node](), self._root, 0
        while child := node.children.get(ids[at]) if at < len(ids) else None:
            if common(child.ids, ids[at:]) < len(child.ids):
                break
            at += len(child.ids)
            node = child
            path.append(node)
        for node in reversed(path):
            if node.children or not node.ahead:
                break
            self._drop(node)

    def clear(self) -> None:
        """Forget everything."""
        self._root = _Node(ids=(), segment=[], parent=None)
        self.nbytes = 0

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut a node in two and return the upper part."""
        assert node.parent is not None
        # Copies, because a view would keep the whole of it in memory.
        upper = _Node(
            ids=node.ids[:at],
            segment=_copied([(k[:, :at], v[:, :at]) for k, v in node.segment]),
            parent=node.parent,
            used=node.used,
            ahead=node.ahead,
        )
        node.parent.children[node.ids[0]] = upper
        node.segment = _copied([(k[:, at:], v[:, at:]) for k, v in node.segment])
        node.ids, node.parent = node.ids[at:], upper
        upper.children[node.ids[0]] = node
        self._trunks.pop(node, None)
        return upper

    def _evict(self) -> None:
        while self.nbytes > self.max_bytes:
            self._drop(min(self._leaves(self._root), key=lambda node: node.used))

    def _drop(self, leaf: _Node) -> None:
        assert leaf.parent is not None
        del leaf.parent.children[leaf.ids[0]]
        self.nbytes -= leaf.nbytes

    def _leaves(self, node: _Node) -> Iterator[_Node]:
        for child in node.children.values():
            if child.children:
                yield from self._leaves(child)
            else:
                yield child

    def trunk(self, shared: tuple[_Node, ...], *, make: bool = True) -> Trunk | None:
        """Return the front of a match as one piece, the same one for all rows that have it.

        Args:
            shared: The match's.
            make: Whether to make it where no row has it yet.

        Returns:
            The piece, or None where there is none.
        """
        trunk = self._trunks.get(shared[-1]) if shared else None
        if trunk is None and shared and make:
            segment: Segment = shared[0].segment
            if len(shared) > 1:
                segment = [
                    (torch.cat([k for k, _ in layer], 1), torch.cat([v for _, v in layer], 1))
                    for layer in zip(*(node.segment for node in shared), strict=True)
                ]
            trunk = Trunk(sum(len(node.ids) for node in shared), segment)
            self._trunks[shared[-1]] = trunk
        return trunk


def _shared(path: list[_Node]) -> tuple[_Node, ...]:
    """Return the branches that lead to a fork: the prompt's own last ones are nobody else's."""
    for size in range(len(path), 0, -1):
        node = path[size - 1]
        forks = 1 if size == len(path) else 2  # the prompt leaves the last one by a new branch
        if len(node.children) >= forks and len(node.ids) >= _WORTH_SHARING:
            return tuple(path[:size])
    return ()


def _copied(segment: Segment) -> Segment:
    return [(keys.clone(), values.clone()) for keys, values in segment]


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """Count the ids that two runs begin with in common.

    Args:
        left: One run.
        right: The other.

    Returns:
        How many there are.
    """
    size = min(len(left), len(right))
    if tuple(left[:size]) == tuple(right[:size]):
        return size
    return next(i for i in range(size) if left[i] != right[i])
