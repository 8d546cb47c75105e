"""A program ends when its main thread does, whatever a student is doing."""

from __future__ import annotations

import pytest
from support.models.fakes import MODELS
from support.programs.processes import run_python

pytestmark = pytest.mark.slow


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
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end of main\n"


def test_threads_of_the_users_own_go_on_when_the_main_one_has_ended() -> None:
    code = f"""
import torch, threading, time
torch.set_num_threads(1)
from langchain_gkt import HuggingFaceStudent
student = HuggingFaceStudent(model={str(MODELS / "student")!r}, max_tokens=5)
def work():
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    print(student.invoke("What is 3 plus 4?").text)
threading.Thread(target=work).start()
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Plan: 3"), done.stderr
