"""The former home of `langchain_gkt.evaluation.tasks.word_problems`."""

from __future__ import annotations

from langchain_gkt.evaluation.tasks.word_problems import WordProblem, generate, sample

__all__ = ["WordProblem", "generate", "sample"]
