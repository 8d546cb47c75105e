"""Programs that are interrupted while a batch or an evaluation runs."""

from __future__ import annotations

from pathlib import Path

from support.programs.forks import Forks

_TESTS = str(Path(__file__).parents[2])
# A shell has its background jobs ignore Ctrl-C, and their programs inherit that.
HEARS_CTRL_C = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = [{_TESTS!r}]
"""
EVALUATION = f"""
{HEARS_CTRL_C}
from support.models.exam import PRICE, Needy, pair, task
from langchain_gkt.evaluation import compare, sweep
"""
"""What programs import that may use `pair`, `task`, `compare` and `sweep`."""
_KILLED = """
for dies_at in [*map(int, sys.argv[2:]), None]:
    process = os.fork()
    if not process:
        teacher, student = {{"diary": sys.argv[1] + ".diary"}}, {{"asked": [], "dies_at": dies_at}}
        chain = pair(teacher=teacher, student=student)
        print({call}, flush=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == (-signal.SIGKILL if dies_at else 0), code
"""


def run_killed(forks: Forks, folder: Path, call: str, *deaths: int) -> str:
    """Run a call in processes that are killed at the given calls of the student, then to the end.

    Args:
        forks: What has imported `EVALUATION`.
        folder: The run's folder.
        call: What to run, with a ``chain`` that is there and the folder as ``sys.argv[1]``.
        deaths: At which call of the student each process is killed.

    Returns:
        What the last one prints.
    """
    done = forks.run(_KILLED.format(call=call), str(folder), *map(str, deaths))
    assert done.returncode == 0, done.stderr
    return done.stdout


INTERRUPTED = """
entered, ended = threading.Event(), threading.Event()

class Silent(WordTeacher):
    def _generate(self, *arguments, **options):
        entered.set()
        ended.wait()

model = HuggingFaceStudent(model=FOLDER, temperature=9.0, max_tokens=480)
if {who!r} == "teacher":
    model = GuidedKnowledgeTransferChain(teacher=Silent(), student=model)
else:
    decode = model._engine.scheduler._decode
    def noted(*arguments):
        entered.set()
        return decode(*arguments)
    model._engine.scheduler._decode = noted

def interrupt():
    entered.wait()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    model.batch(["x"] * 400)
    ended.set()
except KeyboardInterrupt:
    print("interrupted, and the work goes on" if not ended.is_set() else "it waited")
"""
"""A batch of a silent teacher, or of many long answers of a student; it interrupts itself."""
