"""A program ends with its main thread or Ctrl-C, whatever a student is doing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.models.fakes import MODELS
from support.programs.forks import Forks
from support.programs.interruptions import HEARS_CTRL_C, INTERRUPTED

IMPORTS = f"""
{HEARS_CTRL_C}
import threading, time, torch
torch.set_num_threads(1)
from support.models.fakes import WordTeacher
from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent
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


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(IMPORTS) as running:
        yield running


@pytest.mark.slow
def test_the_program_ends_with_its_main_thread_and_those_of_the_users_own(forks) -> None:
    # An answer was being written.
    writing = forks.run(WRITING)
    assert writing[:2] == (0, "end of main\n"), writing
    # Threads of the user's own go on when the main one has ended.
    own_thread = forks.run(OWN_THREAD)
    assert own_thread.returncode == 0, own_thread
    assert own_thread.stdout.startswith("Plan: 3"), own_thread


@pytest.mark.slow
@pytest.mark.parametrize("who", ["teacher", "student"])
def test_an_interrupted_batch_ends_the_program_while_its_work_goes_on(forks, who) -> None:
    ended = forks.run(INTERRUPTED.format(who=who))
    assert ended[:2] == (0, "interrupted, and the work goes on\n"), ended
