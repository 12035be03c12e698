"""A Slurm job that runs a build on several nodes: Ray on each, and one `instructrec build` that drives them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

NODES, CORES, HOURS = 2, 8, 24
"""What the script asks for until its first lines are edited."""

_SCRIPT = """\
#!/usr/bin/env bash
# Written by `instructrec build --slurm`. Submit it from a folder that all nodes share: sbatch {name}
# A job that was cut off continues where it was when it is submitted again.
#SBATCH --job-name=instructrec-build
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cores}
#SBATCH --time={hours}:00:00
#SBATCH --requeue
#SBATCH --output=instructrec-build-%j.log
set -euo pipefail

# Environment modules or a virtual environment that all nodes share are activated here.

port=$((20000 + SLURM_JOB_ID % 10000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS="$head:$port" RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')  # nobody else on the network may join
trap 'kill $(jobs -p) 2>/dev/null' EXIT

srun --nodes=1 --ntasks=1 --nodelist="$head" \\
    ray start --head --block --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false &
for _ in $(seq 120); do ray status >/dev/null 2>&1 && break || sleep 1; done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \\
        ray start --block --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" &
fi

{command} --engine ray --workers $((SLURM_JOB_NUM_NODES * SLURM_CPUS_PER_TASK))
"""


def slurm_script(name: str, arguments: Sequence[str]) -> str:
    """The script of one job.

    Args:
        name: of the script, for its first lines.
        arguments: of `instructrec build`, without `--slurm`, `--workers` and `--engine`.
    """
    command = shlex.join(["instructrec", "build", *arguments])
    return _SCRIPT.format(name=shlex.quote(name), nodes=NODES, cores=CORES, hours=HOURS, command=command)
