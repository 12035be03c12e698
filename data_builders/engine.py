"""Runs one stage of a build over its shards, on this machine or a cluster, and resumes where it was.

The engine is datatrove; a stage is a function of a shard's number, so another engine could take its place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from loguru import logger

from instructrec.core.errors import UserError

ENGINES = ("local", "ray")


class _QuietLocal(LocalPipelineExecutor):
    """datatrove's local executor without its log on the terminal; a failing shard still raises."""

    def _launch_run_for_rank(self, *args: Any, **kwargs: Any) -> Any:
        logger.disable("datatrove")
        return super()._launch_run_for_rank(*args, **kwargs)

    def run(self) -> Any:
        logger.disable("datatrove")
        return super().run()


def _ray(step: Callable[..., None], shards: int, workers: int, logs: Path) -> None:
    try:
        import ray
        from datatrove.executor.ray import RayPipelineExecutor
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; `pip install ray` or use --engine local") from None
    logger.disable("datatrove")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    RayPipelineExecutor([step], tasks=shards, workers=min(workers, shards), logging_dir=str(logs)).run()


def run_stage(
    title: str, step: Callable[[int], None], sizes: list[int], marks: list[Path], logs: Path, workers: int, engine: str
) -> None:
    """Call `step(rank)` for every shard that is not done yet.

    Args:
        title: what the progress bar says.
        step: the work on one shard; it ends by writing its mark.
        sizes: bytes of each shard, for the progress bar.
        marks: the file that each shard's work ends with.
        logs: datatrove's folder of logs and completions.
        workers: processes at most.
        engine: `local` or `ray`.

    Raises:
        UserError: Ray is asked for and not installed.
        OSError: the disk is full, say; finished shards are kept.
    """

    def task(data: Any, rank: int = 0, world_size: int = 1) -> None:
        step(rank)

    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(title, sizes, marks, done), daemon=True)
    watcher.start()
    try:
        if engine == "ray":
            _ray(task, len(sizes), workers, logs)
        else:
            executor = _QuietLocal([task], tasks=len(sizes), workers=min(workers, len(sizes)), logging_dir=str(logs))
            executor.run()
    finally:
        done.set()
        watcher.join()


def _watch(title: str, sizes: list[int], marks: list[Path], done: threading.Event) -> None:
    """Show how many bytes are done, how fast, and how long it will take, until `done`; only on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn(f"{title:<9}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=sum(sizes))
        finished = False
        while not finished:
            finished = done.wait(0.2)
            progress.update(task, completed=sum(size for size, mark in zip(sizes, marks, strict=True) if mark.exists()))
