"""How many tokens a model reads and writes, and the error for a prompt that leaves no room."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_gkt.errors import StudentError
from langchain_gkt.students.engine.requests.request import Request

_TRUNCATE = ", or set on_long_prompt='truncate' (student_kwargs of a chain)"


@dataclass(frozen=True)
class ContextWindow:
    """The context of a model."""

    size: int | None  # in tokens. None if there is no limit
    is_encoder_decoder: bool = False  # an encoder reads the prompt, in a context of its own

    def used(self, prompt: list[int], answer_prefix: list[int]) -> int:
        """Return how many tokens of the context are used before the answer continues.

        An encoder reads the prompt in a context of its own. Its decoder begins with a start token.
        """
        return len(answer_prefix) + (1 if self.is_encoder_decoder else len(prompt))

    def refuse_long(self, prompt: list[int], answer_prefix: list[int], reserve: int = 0) -> None:
        """Refuse a prompt and an answer's beginning that leave the answer no room in the context.

        Tokens to ``reserve`` will be added to that beginning.

        Raises:
            ValueError: If the context holds no more, or an encoder cannot read the prompt.
        """
        if self.size is None:
            return
        self._refuse_for_encoder(prompt, ValueError)
        # A request seldom uses up a long limit. So at most a quarter of the context is kept for it.
        reserve = min(reserve, self.size // 4)
        used = self.used(prompt, answer_prefix)
        if used + reserve < self.size:
            return
        what = "an answer's beginning" if self.is_encoder_decoder else "a prompt"
        more = f" and {reserve} more are kept for guidance" if reserve else ""
        # Dropping the oldest turns frees no room in the decoder of an encoder-decoder model.
        hint = "" if self.is_encoder_decoder else _TRUNCATE
        raise ValueError(
            f"messages make {what} of {used} tokens{more}, but the student's context holds "
            f"{self.size}; shorten the messages, or use a student with more context{hint}"
        )

    def refuse_request(self, request: Request) -> None:
        """Refuse a request that the context cannot hold, or that has no prompt.

        Raises:
            StudentError: If it has no prompt or does not fit.
        """
        if not request.prompt:
            raise StudentError("the request has no prompt; there is nothing to continue")
        if self.size is None:
            return
        self._refuse_for_encoder(request.prompt, StudentError)
        used = self.used(request.prompt, request.answer_prefix)
        needed = used + request.max_tokens
        if needed > self.size:
            raise StudentError(
                f"the request needs up to {needed} tokens ({used} of text and max_tokens="
                f"{request.max_tokens}), but the student's context holds {self.size}; "
                "shorten the messages or lower max_tokens"
            )

    def _refuse_for_encoder(self, prompt: list[int], kind: type[Exception]) -> None:
        if self.is_encoder_decoder and self.size is not None and len(prompt) > self.size:
            raise kind(
                f"messages make a prompt of {len(prompt)} tokens, but the student's encoder reads "
                f"{self.size}; shorten the messages, or use a student with more "
                f"context{_TRUNCATE}"
            )
