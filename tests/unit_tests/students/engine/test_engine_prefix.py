from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_gkt.students.engine.kv.kv_cache import KVCache
from langchain_gkt.students.engine.kv.prefix_cache import PrefixCache, common_length

# Few ids and a long common start make the tree branch, split and share.
IDS = st.tuples(
    st.sampled_from([[], [1] * 40, [1] * 40 + [2] * 35]),
    st.lists(st.integers(1, 2), min_size=1, max_size=8),
).map(lambda parts: [*parts[0], *parts[1]])
BYTES_PER_ID = 2 * 4


def cached(ids: list[int]) -> KVCache:
    """Keys that are the ids, and values that are the keys before them."""
    made = KVCache(1, len(ids))
    keys = torch.tensor(ids, dtype=torch.float32).reshape(1, -1, 1)
    made.load([(keys, keys.cumsum(1))])
    return made


def check(cache: PrefixCache, ids: list[int], want: int | None) -> None:
    match = cache.match(ids)
    if want is not None:
        assert match.length == want
    keys = torch.tensor(ids, dtype=torch.float32)
    parts = [part for segment in match.segments for part in segment]
    if parts:
        got = torch.cat([k for k, _ in parts], 1).flatten()
        assert torch.equal(got, keys[: match.length])
        sums = torch.cat([v for _, v in parts], 1).flatten()
        assert torch.equal(sums, keys.cumsum(0)[: match.length])
    prefix = cache.shared_prefix(match.shared_nodes)
    if prefix is not None:
        assert 32 <= prefix.length <= match.length
        assert torch.equal(prefix.layers[0][0].flatten(), keys[: prefix.length])
        assert cache.shared_prefix(match.shared_nodes, create=False) is prefix


@pytest.mark.slow
@settings(max_examples=150)
@given(seen=st.lists(IDS, max_size=8), asked=st.lists(IDS, min_size=1, max_size=3))
def test_the_longest_beginning_is_found_and_held_once(seen, asked) -> None:
    cache = PrefixCache(10**6)
    for ids in seen:
        cache.insert(ids, cached(ids))
    for ids in [*asked, *asked]:  # looking up may split a branch, and must lose nothing
        check(cache, ids, max((common_length(ids[:-1], other) for other in seen), default=0))
    beginnings = {tuple(ids[:n]) for ids in seen for n in range(1, len(ids) + 1)}
    assert cache.nbytes == BYTES_PER_ID * len(beginnings)


@pytest.mark.slow
@settings(max_examples=100)
@given(seen=st.lists(st.tuples(IDS, st.booleans()), max_size=12), room=st.integers(0, 120))
def test_bytes_are_bounded_and_what_is_found_is_right(seen, room) -> None:
    cache = PrefixCache(room * BYTES_PER_ID)
    for ids, forgotten in seen:
        check(cache, ids, None)
        cache.insert(ids, cached(ids))
        assert 0 <= cache.nbytes <= cache.max_bytes
        check(cache, [*ids, 1], None)
        if forgotten:
            cache.remove(ids)
    for ids, _ in seen:
        cache.remove(ids)
    cache.clear()
    assert cache.nbytes == 0
    assert cache.match([1, 1, 1]).length == 0


def test_only_what_others_begin_with_is_a_shared_prefix() -> None:
    cache, head = PrefixCache(10**6), [1] * 40
    first, second = [*head, *[2] * 35], [*head, *[3] * 35]
    assert cache.match(first).shared_nodes == ()
    cache.insert(first, cached(first))
    assert cache.match([*first, 9]).shared_nodes == ()  # its own prompt, read ahead
    assert cache.shared_prefix(cache.match(second).shared_nodes).length == 40
    cache.insert(second, cached(second))
    prefixes = {
        cache.shared_prefix(cache.match([*ids, 9]).shared_nodes)
        for ids in (first, second, [*head, 4])
    }
    assert [prefix.length for prefix in prefixes] == [40]
