"""What a server's prefix cache holds of recent prompts."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_CONFIG = re.compile(r"^vllm:cache_config_info\{(?P<labels>.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(\d+)"')
_MOST_BLOCKS = 65_536


@dataclass
class PrefixBlocks:
    """Remembers the whole blocks of prompts, with keys like those of vLLM's prefix cache.

    vLLM keeps the KV cache of whole blocks only. Prefilling a prompt ahead pays only if it has a
    whole block that no earlier prompt had. Evictions at the server are unknown. An evicted prompt
    is read with its request.
    """

    size: int  # tokens of a block
    most: int = _MOST_BLOCKS  # to remember, as many as the server has
    _keys: OrderedDict[int, None] = field(default_factory=OrderedDict)

    @classmethod
    def of_metrics(cls, text: str) -> PrefixBlocks | None:
        """Read the blocks of a server from its ``/metrics``. None if they do not say."""
        config = _CONFIG.search(text)
        labels = dict(_LABEL.findall(config["labels"])) if config else {}
        if not (size := int(labels.get("block_size", 0))):
            return None
        return cls(size, int(labels.get("num_gpu_blocks", 0)) or _MOST_BLOCKS)

    def worth_reading(self, ids: list[int]) -> list[int]:
        """Return the whole blocks of a prompt and one token.

        Without that token, vLLM would read the last block again if it has all of them.
        """
        return ids[: len(ids) - len(ids) % self.size + 1]

    def holds(self, ids: Sequence[int]) -> bool:
        """Return whether the server has recently read all whole blocks of a prompt."""
        keys = list(self._keys_of(ids))
        return not keys or keys[-1] in self._keys

    def add(self, ids: Sequence[int]) -> None:
        """Remember a prompt that the server has read."""
        for key in self._keys_of(ids):
            self._keys.pop(key, None)  # the newest are at the end
            self._keys[key] = None
        while len(self._keys) > self.most:
            self._keys.popitem(last=False)

    def clear(self) -> None:
        """Forget all, because the server may have been restarted."""
        self._keys.clear()

    def _keys_of(self, ids: Sequence[int]) -> Iterator[int]:
        """Yield a key for each whole block, which depends on all tokens up to its end."""
        key = 0
        for end in range(self.size, len(ids) + 1, self.size):
            key = hash((key, *ids[end - self.size : end]))
            yield key
