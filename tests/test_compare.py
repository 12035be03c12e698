"""The statistics on simulated data whose truth is known, and `instructrec compare` on evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import cli
from hypothesis import given
from hypothesis import strategies as st

from instructrec.evaluation import statistics
from instructrec.evaluation.statistics import clustered_mean, compare_clustered, holm

SIMULATIONS = 1000


def simulated(rng: np.random.Generator, groups: int, effect: float) -> tuple[list[list[float]], list[str]]:
    """Differences of items in groups of 4 to 12, each group with an effect of its own around `effect`."""
    sizes = rng.integers(4, 13, groups)
    shifts = rng.normal(effect, 0.5, groups)
    values = [rng.normal(shift, 1.0, size) for shift, size in zip(shifts, sizes, strict=True)]
    return [np.concatenate(values).tolist()], [str(i) for i, size in enumerate(sizes) for _ in range(size)]


def simulate(groups: int, effect: float) -> tuple[float, float]:
    """Share of intervals that hold the truth, and of p-values under 5 %."""
    rng = np.random.default_rng(groups)
    covered = significant = 0
    for number in range(SIMULATIONS):
        values, names = simulated(rng, groups, effect)
        result = compare_clustered(values, [[0.0] * len(names)], names, seed=number)
        assert result.ci95 is not None
        covered += result.ci95[0] <= effect <= result.ci95[1]
        significant += result.p < 0.05
    return covered / SIMULATIONS, significant / SIMULATIONS


@pytest.mark.slow
@pytest.mark.parametrize("groups", [6, 12, 40])
def test_intervals_cover_and_false_alarms_are_rare(groups, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    covered, significant = simulate(groups, effect=0.0)
    assert 0.93 <= covered <= 0.97
    assert significant <= 0.05 + 2 * (0.05 * 0.95 / SIMULATIONS) ** 0.5
    covered, significant = simulate(groups, effect=0.6)
    assert 0.93 <= covered <= 0.97
    assert significant > (0.5 if groups > 6 else 0.2)


def test_the_items_that_are_said_to_be_needed_are_needed(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    rng = np.random.default_rng(0)
    values, names = simulated(rng, 1000, 0.4)
    needed = compare_clustered(values, [[0.0] * len(names)], names).needed
    assert needed is not None
    hits = 0
    for number in range(200):
        values, names = simulated(rng, round(needed / 8), 0.2)
        hits += compare_clustered(values, [[0.0] * len(names)], names, seed=number).p < 0.05
    assert 0.6 < hits / 200 < 0.95


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(1)
    names = [str(i // 10) for i in range(200)]
    noise = rng.normal(0, 1, 200)
    alike = [noise.tolist()] * 3
    apart = [(noise + shift).tolist() for shift in (-1.0, 0.0, 1.0)]
    widths = []
    for values in (alike, apart):
        result = compare_clustered(values, [[0.0] * 200] * 3, names)
        assert result.ci95 is not None and result.seeds == 3
        widths.append(result.ci95[1] - result.ci95[0])
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize("groups", [2, 5, 8])
def test_few_groups_cannot_be_significant(groups):
    names = [str(i % groups) for i in range(100)]
    result = compare_clustered([[1.0] * 100], [[0.0] * 100], names)
    assert result.p == pytest.approx(2 / 2**groups) and result.groups == groups


def test_the_mean_of_groups_has_the_interval_of_a_comparison_with_nothing():
    values, names = simulated(np.random.default_rng(0), 12, 0.3)
    found = clustered_mean(values[0], names, seed=3)
    compared = compare_clustered(values, [[0.0] * len(names)], names, seed=3)
    assert found == {"value": pytest.approx(compared.value), "ci95": pytest.approx(list(compared.ci95))}
    assert clustered_mean(values[0], ["one"] * len(names)) == statistics.mean_with_interval(values[0])


def test_one_group_has_no_interval():
    result = compare_clustered([[1.0, 2.0]], [[0.0, 0.0]], ["a", "a"])
    assert result.ci95 is None and result.p == 1.0 and result.value == 1.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p):
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True)) and max(adjusted) <= 1
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    assert adjusted[order[0]] == min(1.0, len(p) * p[order[0]])


def write_run(folder: Path, models: dict[str, float], groups: int = 12, seed: int = 0) -> Path:
    """An evaluation in which every model's NLL is its number plus noise that they share in part."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    (folder / "scores.json").write_text(json.dumps({"models": list(models)}))
    lines = []
    for number in range(groups * 10):
        item = {"suite": "test_tasks", "id": f"i{number}", "category": f"family{number % groups}"}
        base = rng.normal()
        for name, value in models.items():
            scores = {"gold_nll": value + base + 0.3 * rng.normal(), "rouge_l": 0.5}
            lines.append(json.dumps({**item, "model": name, "scores": scores}))
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_real_difference_is_claimed_with_its_scope(tmp_path):
    run = write_run(tmp_path / "a", {"base": 3.0, "tuned": 2.0})
    done = cli("compare", f"{run}:base", str(run), "--output", str(tmp_path / "findings.json"))
    assert done.returncode == 0, done.stderr
    assert "is better than" in done.stdout and "one training seed" in done.stdout and "warning" not in done.stdout
    (finding,) = json.loads((tmp_path / "findings.json").read_text())
    assert finding["difference"] == pytest.approx(-1.0, abs=0.2) and finding["ci95"][1] < 0 and finding["groups"] == 12


def test_seeds_are_compared_as_one_arm(tmp_path):
    folders = [write_run(tmp_path / f"s{seed}", {"base": 3.0, "tuned": 2.5}, seed=seed) for seed in range(3)]
    arms = [",".join(f"{folder}:{model}" for folder in folders) for model in ("base", "tuned")]
    done = cli("compare", *arms)
    assert done.returncode == 0 and "is better than" in done.stdout and "3 training seeds" in done.stdout


def test_no_difference_is_not_claimed_and_says_what_it_would_take(tmp_path):
    run = write_run(tmp_path / "a", {"base": 3.0, "tuned": 2.999})
    done = cli("compare", f"{run}:base", str(run), "--metric", "gold_nll", "--metric", "rouge_l")
    assert done.returncode == 0
    assert done.stdout.count("no difference may be claimed") == 2 and "items to see" in done.stdout


def test_too_few_families_are_warned_about(tmp_path):
    run = write_run(tmp_path / "a", {"base": 3.0, "tuned": 1.0}, groups=4)
    done = cli("compare", f"{run}:base", str(run))
    assert "no difference may be claimed" in done.stdout and "warning: test_tasks: 4 groups" in done.stdout


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["nowhere", "nowhere"], "no finished evaluation"),
        (["a"], "two runs or more"),
        (["a:bas", "a"], "has no model 'bas'"),
        (["a", "other"], "no item in common"),
        (["a,a", "a"], "one per seed"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, runs, message):
    write_run(tmp_path / "a", {"base": 3.0, "tuned": 1.0})
    other = write_run(tmp_path / "other", {"base": 3.0})
    text = (other / "predictions.jsonl").read_text().replace('"id": "i', '"id": "j')
    (other / "predictions.jsonl").write_text(text)
    arms = [",".join(str(tmp_path / part) for part in run.split(",")) for run in runs]
    done = cli("compare", *arms)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_an_unknown_metric_is_named_with_the_nearest(tmp_path):
    run = write_run(tmp_path / "a", {"base": 3.0, "tuned": 1.0})
    done = cli("compare", f"{run}:base", str(run), "--metric", "rouge")
    assert done.returncode == 2 and "rouge_l" in done.stderr
