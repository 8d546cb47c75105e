"""Tasks: rows, the prompt of each, and when an answer is right."""

from langchain_gkt.evaluation.tasks.loading import load_task
from langchain_gkt.evaluation.tasks.task import Example, Task

__all__ = ["Example", "Task", "load_task"]
