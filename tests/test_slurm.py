"""`instructrec build --slurm` writes a job script, and the script builds the same set as the command itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What Slurm gives a job, in miniature: one node, this one.
STUBS = {
    "scontrol": "echo 127.0.0.1",
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
}


def write_script(folder: Path, corpus: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "instructrec", "build", "--corpus", str(corpus), *arguments]
    return subprocess.run(
        [*command, "--slurm", str(folder / "job.sh")], capture_output=True, text=True, check=False, cwd=folder
    )


def test_the_script_holds_the_command_and_is_never_overwritten(tmp_path, corpus):
    done = write_script(tmp_path, corpus, "--output", "a set", "--seed=3", "--workers", "2")
    assert done.returncode == 0, done.stderr
    script = (tmp_path / "job.sh").read_text()
    assert f"instructrec build --corpus={corpus} '--output=a set' --seed=3 --engine ray --workers $((" in script
    assert not (tmp_path / "a set").exists()
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    again = write_script(tmp_path, corpus)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_a_wrong_setting_is_found_before_the_job_waits_in_a_queue(tmp_path, corpus):
    done = write_script(tmp_path, corpus, "--families", "titel")
    assert done.returncode == 2 and "title" in done.stderr and not (tmp_path / "job.sh").exists()


@pytest.mark.slow
def test_the_script_builds_what_the_command_builds(tmp_path, corpus):
    pytest.importorskip("ray")
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, body in STUBS.items():
        (stubs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (stubs / name).chmod(0o755)
    assert write_script(tmp_path, corpus, "--output", "on-slurm").returncode == 0
    # Without this Ray would listen on the machine's address in the network.
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    job = loopback | {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1"}
    path = os.pathsep.join([str(stubs), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | job | {"SLURM_CPUS_PER_TASK": "2", "PATH": path}
    done = subprocess.run(
        ["bash", "job.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    command = [sys.executable, "-m", "instructrec", "build", "--corpus", str(corpus), "--output", "here"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in ("on-slurm", "here")]
    assert manifests[0] == manifests[1]
