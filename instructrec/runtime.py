"""The process a recipe runs in: quiet libraries, every core in use, and flags that fit the machine."""

from __future__ import annotations

import logging
import os
import sys
import warnings


def quiet() -> None:
    """No telemetry and only errors from the libraries."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import datasets
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets_logging.set_verbosity(logging.CRITICAL)  # the errors that it logs it raises too


def use_all_cores() -> int:
    """Share the CPU cores among this machine's processes and return the threads of this one.

    `accelerate launch` and torchrun set OMP_NUM_THREADS to 1, which leaves all but one core idle on a CPU.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if not torch.accelerator.is_available():
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def cpu_flags(arguments: list[str] | None = None) -> list[str]:
    """The command line, with `--use_cpu true` where no accelerator is found: TRL's defaults fail without one."""
    import torch

    arguments = sys.argv[1:] if arguments is None else arguments
    if torch.accelerator.is_available() or any(a.partition("=")[0] == "--use_cpu" for a in arguments):
        return arguments
    return ["--use_cpu", "true", *arguments]
