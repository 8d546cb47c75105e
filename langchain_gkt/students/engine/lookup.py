"""Prompt lookup: guessing the next tokens from where the last few occurred before."""

from __future__ import annotations

from collections.abc import Sequence

# Shorter runs recur by chance; longer ones miss what is only nearly a copy.
_RUN = 3


class Lookup:
    """Remembers what followed every run of three tokens."""

    def __init__(self, ids: Sequence[int]) -> None:
        """Read a text.

        Args:
            ids: Its tokens.
        """
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token to the text.

        Args:
            token: Its id.
        """
        # The run that ends here is noted with the next token: it must not find itself.
        if len(self._ids) >= _RUN:
            self._after[tuple(self._ids[-_RUN:])] = len(self._ids)
        self._ids.append(token)

    def guess(self, most: int) -> list[int]:
        """Say what followed when the text's last tokens occurred before.

        Args:
            most: How many tokens to guess.

        Returns:
            So many tokens or fewer; none where the last tokens are new.
        """
        at = self._after.get(tuple(self._ids[-_RUN:]))
        return [] if at is None else self._ids[at : at + max(0, most)]
