"""A program ends when its main thread does, whatever a student is doing."""

from __future__ import annotations

import pytest
from support.models.fakes import MODELS
from support.programs.processes import run_forks

IMPORTS = f"""
import threading, time, torch
torch.set_num_threads(1)
from langchain_gkt import HuggingFaceStudent
import langchain_gkt.students.backends.pytorch.loading, langchain_gkt.students.conversion
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
FOLDER = {str(MODELS / "student")!r}
"""
WRITING = """
student = HuggingFaceStudent(model=FOLDER)
stream = student.stream("x", max_tokens=480, temperature=9.0)
next(stream)
keep = [stream]
print("end of main")
"""
OWN_THREAD = """
student = HuggingFaceStudent(model=FOLDER, max_tokens=5)
def work():
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    print(student.invoke("What is 3 plus 4?").text)
threading.Thread(target=work).start()
"""


@pytest.mark.slow
def test_the_program_ends_with_its_main_thread_and_those_of_the_users_own() -> None:
    writing, own_thread = run_forks(IMPORTS, WRITING, OWN_THREAD)
    # An answer was being written.
    assert writing[:2] == [0, "end of main\n"], writing
    # Threads of the user's own go on when the main one has ended.
    assert own_thread[0] == 0, own_thread
    assert own_thread[1].startswith("Plan: 3"), own_thread
