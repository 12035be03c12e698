"""Runs one stage of a build over its shards, on this machine or a cluster, and resumes where it was.

The engine is datatrove; a stage is a function of a shard's number, so another engine could take its place.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import multiprocess
import pyarrow as pa
from datatrove.executor import LocalPipelineExecutor
from loguru import logger

from instructrec.core.errors import UserError, check_interrupt, hold_interrupts, release_interrupts

T = TypeVar("T")
CALLS = 32
"""Shards after which a worker gives way to a new one, since some of the memory of each stays taken."""
ENGINES = ("local", "ray")
multiprocess.set_forkserver_preload(["data_builders.workers"])


class _QuietLocal(LocalPipelineExecutor):
    """datatrove's local executor without its log on the terminal; a failing shard still raises."""

    def _launch_run_for_rank(self, *args: Any, **kwargs: Any) -> Any:
        logger.disable("datatrove")
        return super()._launch_run_for_rank(*args, **kwargs)

    def run(self) -> Any:
        logger.disable("datatrove")
        return super().run()

    # Between these two datatrove starts a process that it would wait for without end if it were interrupted there.
    def save_executor_as_json(self) -> None:
        super().save_executor_as_json()
        hold_interrupts()

    def get_incomplete_ranks(self, *args: Any, **kwargs: Any) -> Any:
        release_interrupts()
        return super().get_incomplete_ranks(*args, **kwargs)


def _local(step: Callable[..., None], shards: int, workers: int, logs: Path) -> None:
    if workers > 1:
        _QuietLocal([step], tasks=shards, workers=workers, logging_dir=str(logs)).run()
        return
    with _process() as process:  # datatrove would do a single worker's shards here, where their memory stays taken

        def there(data: Any, rank: int = 0, world_size: int = 1) -> None:
            process.apply(step, (None, rank, world_size))

        _QuietLocal([there], tasks=shards, workers=1, logging_dir=str(logs)).run()


def _ray(step: Callable[..., None], shards: int, workers: int, logs: Path) -> None:
    try:
        import ray
        from datatrove.executor.ray import RayPipelineExecutor
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; `pip install ray` or use --engine local") from None
    logger.disable("datatrove")
    if not ray.is_initialized():
        # A cluster only if one is named: Ray would also look for the last one on this machine, and wait if it is gone.
        address = os.environ.get("RAY_ADDRESS", "local")
        ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    RayPipelineExecutor([step], tasks=shards, workers=min(workers, shards), logging_dir=str(logs)).run()


@dataclass(frozen=True)
class Stage:
    """One stage of a build.

    Attributes:
        title: what the progress bar says.
        step: the work on the shard of a number; it ends by writing the shard's mark.
        sizes: bytes of each shard, for the progress bar.
        marks: the folder of the marks, `RANK.json`.
        counted: what is counted for the progress bar, a key of every mark.
    """

    title: str
    step: Callable[[int], None]
    sizes: list[int]
    marks: Path
    counted: str


def settle() -> None:
    """Make this process ready for a shard in little memory."""
    heap = pa.system_memory_pool()
    pa.set_memory_pool(heap)  # one heap: what Python frees serves Arrow, and the other way round
    heap.release_unused()
    if not gc.get_freeze_count():  # once: what is garbage by then stays in memory for good
        gc.freeze()  # what is imported by now need not be looked through for garbage again


def run_stage(stage: Stage, logs: Path, workers: int, engine: str) -> None:
    """Do a stage's work on every shard that is not done yet.

    Args:
        logs: datatrove's folder of logs and completions.
        workers: processes at most.
        engine: `local` or `ray`.

    Raises:
        UserError: Ray is asked for and not installed.
        OSError: the disk is full, say; finished shards are kept.
    """
    shards, step = len(stage.sizes), stage.step

    def task(data: Any, rank: int = 0, world_size: int = 1) -> None:
        settle()
        step(rank)

    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(stage, done), daemon=True)
    watcher.start()
    try:
        if engine == "ray":
            _ray(task, shards, workers, logs)
        else:
            _local(task, shards, min(workers, shards), logs)
    finally:
        done.set()
        watcher.join()
    check_interrupt()


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """The result of a function, called in a process of its own so that the memory it took ends with it."""
    with _process() as process:
        return process.apply(function, arguments)


def _process() -> Any:
    """A pool of one process at a time; Ctrl-C reaches this process alone, which ends the other."""
    ignored = (signal.SIGINT, signal.SIG_IGN)
    return multiprocess.get_context("forkserver").Pool(1, signal.signal, ignored, CALLS)


def _watch(stage: Stage, done: threading.Event) -> None:
    """Show how much is done, how fast, and how long it will take, until `done`; only on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    counts = TextColumn("{task.fields[count]:,} {task.fields[counted]}, {task.fields[rate]:,.0f}/s")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), counts, TimeRemainingColumn())
    waiting = dict(enumerate(stage.sizes))
    size = count = 0
    with Progress(TextColumn(f"{stage.title:<9}"), *columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(stage.title, total=sum(stage.sizes), count=0, counted=stage.counted, rate=0.0)
        started = time.monotonic()
        finished = False
        while not finished:
            finished = done.wait(0.2)
            for rank in [rank for rank in waiting if (stage.marks / f"{rank:05d}.json").exists()]:
                size += waiting.pop(rank)
                count += json.loads((stage.marks / f"{rank:05d}.json").read_text(encoding="utf-8"))[stage.counted]
            bar.update(task, completed=size, count=count, rate=count / (time.monotonic() - started))
