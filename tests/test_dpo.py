"""recipes/dpo.py: where it starts, what it learns, and that it goes on as if nothing had been."""

import json
import math
from pathlib import Path

import pytest
from conftest import pair_flags, recipe


def log(folder: Path, step: int) -> list[dict]:
    return json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]


@pytest.fixture(scope="module")
def run(pairs, instruction_set, tiny_model, start_of):
    """Run recipes/dpo.py on the tiny model."""

    def go(output: Path, *flags: str, **more: object):
        given = pair_flags(pairs, instruction_set, tiny_model, output, init_adapter=start_of(tiny_model), **more)
        return recipe("dpo.py", *given, *flags)

    return go


SIX = {"max_steps": 6, "save_steps": 2, "eval_steps": 2, "learning_rate": 1e-3, "warmup_steps": 0}


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("dpo") / "adapter"
    done = run(output, **SIX)
    assert done.returncode == 0, done.stderr
    return output, done


def test_it_begins_at_its_reference_and_moves_away(trained):
    output, done = trained
    entries = log(output, 6)
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    start, *_, end = [entry for entry in entries if "eval_rewards/margins" in entry]
    assert start["step"] == 0 and start["eval_rewards/margins"] == 0 < end["eval_rewards/margins"]
    assert end["eval_loss"] < start["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert "held out    gold_nll" in done.stdout
