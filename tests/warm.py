"""Runs recipes and commands in forks of one process that has imported the libraries, for they are most of a small run.

`python warm.py` reads one JSON object a line, `{"script": path or null, "arguments": […], "cwd": folder,
"environment": {…}, "stdout": file, "stderr": file, "timeout": seconds}`; null runs `python -m instructrec`. It answers
each with a line, the exit status.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import sys
import traceback
from typing import NoReturn


def main() -> None:
    from peft import PeftModel  # noqa: F401
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401
    from trl import DPOTrainer, GRPOTrainer, RewardTrainer, RLOOTrainer, SFTTrainer  # noqa: F401

    import instructrec.merge
    import instructrec.plan
    import instructrec.publish
    import instructrec.training  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            run(job)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(job: dict) -> NoReturn:
    """Do a job and end, without the time that taking all modules down costs."""
    signal.alarm(job["timeout"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = [job["script"] or "instructrec", *job["arguments"]]
    status = 0
    try:
        if job["script"]:
            runpy.run_path(job["script"], run_name="__main__")
        else:
            runpy.run_module("instructrec", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
