from __future__ import annotations

import subprocess
import sys

from fakes import MODELS


def test_the_program_ends_although_an_answer_is_being_written() -> None:
    code = f"""
import torch, threading
torch.set_num_threads(1)
from langchain_gkt import HuggingFaceStudent
student = HuggingFaceStudent(model={str(MODELS / "student")!r})
stream = student.stream("x", max_tokens=480, temperature=9.0)
next(stream)
keep = [stream]
print("end of main")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "end of main\n"
