"""Teachers that replay recorded answers."""

from langchain_gkt.teachers.recorded.teacher import RecordedTeacher

__all__ = ["RecordedTeacher"]
