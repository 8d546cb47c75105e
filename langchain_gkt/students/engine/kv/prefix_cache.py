"""Keys and values of earlier prompts, for prompts that begin alike.

A radix tree over token ids. It holds what prompts share once. It belongs to the scheduler's thread
and is not thread-safe.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import torch

from langchain_gkt.students.engine.kv.kv_cache import KVCache, Segment, part_of
from langchain_gkt.students.engine.kv.shared_prefix import SharedPrefix

# Shorter runs are not worth a node of their own, nor an attention call of their own.
_MIN_SHARED = 32


@dataclass(eq=False)
class _Node:
    ids: tuple[int, ...]
    segment: Segment
    parent: _Node | None
    children: dict[int, _Node] = field(default_factory=dict)
    used: int = 0
    ahead: bool = False


SharedNodes = tuple[_Node, ...]
"""The nodes at the front of a prompt's path that other prompts begin with too."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The longest known beginning of some ids."""

    length: int
    segments: list[Segment]  # its keys and values, one after the other
    shared_nodes: SharedNodes  # its front that other prompts begin with too


class PrefixCache:
    """Keys and values by token ids, at most ``max_bytes``. The least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self.clear()
        self._clock = itertools.count(1)
        self._shared_prefixes: WeakValueDictionary[_Node, SharedPrefix] = WeakValueDictionary()

    def match(self, ids: Sequence[int]) -> Match:
        """Find what is known of all ids but the last, whose logits must be computed anyway."""
        ids = tuple(ids[:-1])
        length, segments, path = 0, [], []
        node = self._root
        while child := node.children.get(ids[length]) if length < len(ids) else None:
            same = common_length(child.ids, ids[length:])
            if same < len(child.ids) and same >= _MIN_SHARED:
                child = self._split(child, same)
            child.used = next(self._clock)
            segments.append(part_of(child.segment, 0, same))
            length += same
            if same < len(child.ids):
                break
            path.append(child)
            node = child
        return Match(length=length, segments=segments, shared_nodes=_shared_nodes(path))

    def insert(self, ids: Sequence[int], cache: KVCache, *, ahead: bool = False) -> None:
        """Store the keys and values of ids with which a cache begins.

        With ``ahead`` their request has not come yet. Then `remove` frees what is new.
        """
        node, at = self._root, 0
        while child := node.children.get(ids[at]) if at < len(ids) else None:
            same = common_length(child.ids, ids[at:])
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
        segment = cache.segment(at, len(ids))
        if _nbytes(segment) > self.max_bytes:
            return
        leaf = _Node(tuple(ids[at:]), _copied(segment), node, used=next(self._clock), ahead=ahead)
        node.children[ids[at]] = leaf
        self.nbytes += _nbytes(segment)
        self._evict()

    def remove(self, ids: Sequence[int]) -> None:
        """Drop what was stored ahead for these ids, except what a request has used since."""
        path, node, at = list[_Node](), self._root, 0
        while child := node.children.get(ids[at]) if at < len(ids) else None:
            if common_length(child.ids, ids[at:]) < len(child.ids):
                break
            at += len(child.ids)
            node = child
            path.append(node)
        for node in reversed(path):
            if node.children or not node.ahead:
                break
            self._drop(node)

    def clear(self) -> None:
        """Drop everything."""
        self._root = _Node(ids=(), segment=[], parent=None)
        self.nbytes = 0

    def _split(self, node: _Node, at: int) -> _Node:
        """Split a node in two and return the upper part."""
        assert node.parent is not None
        # Copies, because views would keep the whole tensor in memory.
        upper = _Node(
            ids=node.ids[:at],
            segment=_copied(part_of(node.segment, 0, at)),
            parent=node.parent,
            used=node.used,
            ahead=node.ahead,
        )
        node.parent.children[node.ids[0]] = upper
        node.segment = _copied(part_of(node.segment, at))
        node.ids, node.parent = node.ids[at:], upper
        upper.children[node.ids[0]] = node
        self._shared_prefixes.pop(node, None)
        return upper

    def _evict(self) -> None:
        while self.nbytes > self.max_bytes:
            self._drop(min(self._leaves(self._root), key=lambda node: node.used))

    def _drop(self, leaf: _Node) -> None:
        assert leaf.parent is not None
        del leaf.parent.children[leaf.ids[0]]
        self.nbytes -= _nbytes(leaf.segment)

    def _leaves(self, node: _Node) -> Iterator[_Node]:
        for child in node.children.values():
            if child.children:
                yield from self._leaves(child)
            else:
                yield child

    def shared_prefix(self, nodes: SharedNodes, *, create: bool = True) -> SharedPrefix | None:
        """Return the front of a match in one piece, the same object for all that begin with it.

        Only with ``create`` is it made if no running request has it yet.
        """
        prefix = self._shared_prefixes.get(nodes[-1]) if nodes else None
        if prefix is None and nodes and create:
            segment: Segment = nodes[0].segment
            if len(nodes) > 1:
                segment = [
                    (torch.cat([k for k, _ in layer], 1), torch.cat([v for _, v in layer], 1))
                    for layer in zip(*(node.segment for node in nodes), strict=True)
                ]
            prefix = SharedPrefix(sum(len(node.ids) for node in nodes), segment)
            self._shared_prefixes[nodes[-1]] = prefix
        return prefix


def _shared_nodes(path: list[_Node]) -> SharedNodes:
    """Return the nodes up to the last fork. Those after it belong to this prompt alone."""
    for size in range(len(path), 0, -1):
        node = path[size - 1]
        forks = 1 if size == len(path) else 2  # the prompt leaves the last one by a new branch
        if len(node.children) >= forks and len(node.ids) >= _MIN_SHARED:
            return tuple(path[:size])
    return ()


def _nbytes(segment: Segment) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in segment)


def _copied(segment: Segment) -> Segment:
    return [(keys.clone(), values.clone()) for keys, values in segment]


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Count the ids that two runs begin with in common."""
    size = min(len(left), len(right))
    if tuple(left[:size]) == tuple(right[:size]):
        return size
    return next(i for i in range(size) if left[i] != right[i])
