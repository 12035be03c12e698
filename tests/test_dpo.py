"""recipes/dpo.py: where it starts, what it learns, and that it goes on as if nothing had been."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import (
    CHATML,
    FOUR_STEPS,
    ROOT,
    assert_one_line_error,
    cli,
    largest_difference,
    log_history,
    losses,
    pair_flags,
    recipe,
    said,
    save_splits,
    save_tiny_model,
    weights,
    without,
)

from instructrec.core.errors import UserError
from instructrec.losses import FirstLoss, first_dpo_loss
from instructrec.monitor import warnings
from instructrec.plan import plan


@pytest.fixture(scope="module")
def given(pairs, instruction_set, tiny_model, start_of):
    """Flags of recipes/dpo.py for the tiny model and its adapter."""

    def flags(output: Path, **more: object) -> list[str]:
        known = {"eval_steps": 4, "init_adapter": start_of(tiny_model), "loss_type": "sigmoid"}
        more = FOUR_STEPS | known | {"per_device_train_batch_size": 2} | more
        return pair_flags(pairs, instruction_set, tiny_model, output, **more)

    return flags


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    output = tmp_path_factory.mktemp("dpo") / "adapter"
    done = recipe("dpo.py", *given(output))
    assert done.returncode == 0, done.stderr
    return output, done


class TestDpo:
    def test_begins_at_its_reference_and_leaves_it(self, trained):
        output, done = trained
        assert losses(output)[0] == pytest.approx(math.log(2), abs=1e-6)
        start, end = (entry for entry in log_history(output, 4) if "eval_rewards/margins" in entry)
        assert start["step"] == 0 and start["eval_rewards/margins"] == 0 != end["eval_rewards/margins"]
        asked = [entry for entry in log_history(output, 4) if "eval_gold_nll" in entry]
        assert [entry["step"] for entry in asked] == [0, 4] and "rewards/accuracies" in done.stdout

    def test_learns_the_pairs_it_is_shown(self, given, tmp_path):
        more = {"max_train_rows": 4, "max_steps": 12, "save_steps": 12, "eval_strategy": "no", "ranked_pairs": 0}
        more |= {"eval_on_start": "false", "beta": 1, "learning_rate": 3e-2}
        done = recipe("dpo.py", *given(tmp_path / "out", **more))
        assert done.returncode == 0, done.stderr
        assert losses(tmp_path / "out", 12)[-1] < math.log(2) - 0.01
        assert json.loads((tmp_path / "out" / "pairs.json").read_text()) == {}

    def test_nothing_of_the_reference_goes_out(self, trained, start_of, tiny_model):
        output, _ = trained
        assert not (output / "ref").exists() and not list(output.glob("*.bin")) and not (output / "README.md").exists()
        assert not [key for key in weights(output) if "ref" in key.split(".")]
        frozen = weights(output / "checkpoint-4" / "ref")  # where a run resumes from
        began = weights(start_of(tiny_model))
        assert all(frozen[key].equal(tensor) for key, tensor in began.items())
        assert largest_difference(output, start_of(tiny_model)) > 1e-3

    def test_its_lineage_tells_what_it_came_from(self, trained, pairs, instruction_set, start_of, tiny_model):
        lineage = json.loads((trained[0] / "lineage.json").read_text())
        manifest = json.loads((pairs / "manifest.json").read_text())
        assert lineage["stage"] == "dpo" and lineage["inputs"]["pairs"]["fingerprint"] == manifest["fingerprint"]
        assert lineage["inputs"]["held_out_set"]["name"] == str(instruction_set)
        assert lineage["inputs"]["init_adapter"]["name"] == str(start_of(tiny_model))
        assert lineage["config"]["lora_r"] == 8 and lineage["training"]["rows"] == 24
        assert lineage["training"]["read_back"]["largest_difference"] == 0

    def test_unseen_pairs_are_ranked_beside_simple_rankings(self, trained):
        ranked = json.loads((trained[0] / "pairs.json").read_text())
        assert list(ranked) == ["test_corruptors", "test_documents"]
        for found in ranked.values():
            assert found["pairs"] == 6
            assert found["accuracy"].keys() == {"implicit_reward", *found["better_by"]}
            assert set(found["better_by"]) == {"likelihood", "likelihood_per_token", "length", "tokens"}
            for name, one in found["better_by"].items():
                values = [found["accuracy"][key]["value"] for key in ("implicit_reward", name)]
                assert one["value"] == pytest.approx(values[0] - values[1])
                assert one["ci95"][0] <= one["value"] <= one["ci95"][1]
            nll = found["gold_nll"]
            assert nll["rise"]["value"] == pytest.approx(nll["after"] - nll["before"])
        assert ranked["test_corruptors"]["accuracy"]["length"]["value"] == 1  # the answer twice is longer

    def test_a_finished_adapter_ranks_again_as_after_training(self, trained, pairs, tmp_path):
        """Against the adapter that its lineage names; against another one, it is told so."""
        command = ["rank", str(pairs), "--pairs", "6", "--dtype", "float32"]
        done = cli(*command, "--adapter", str(trained[0]), "--json")
        assert done.returncode == 0, done.stderr
        then = json.loads((trained[0] / "pairs.json").read_text())
        for split, one in json.loads(done.stdout).items():
            assert one["accuracy"] == then[split]["accuracy"] and one["better_by"] == then[split]["better_by"]
            assert one["gold_nll"]["rise"]["value"] == pytest.approx(then[split]["gold_nll"]["rise"]["value"], abs=1e-5)
        own = cli(*command, "--adapter", str(trained[0]), "--reference", str(trained[0]))
        assert own.returncode == 0 and "implicit_reward 0.500" in own.stdout, own.stderr
        moved = shutil.copytree(trained[0], tmp_path / "adapter")
        lineage = json.loads((moved / "lineage.json").read_text())
        lineage["inputs"]["init_adapter"]["name"] = str(tmp_path / "gone")
        (moved / "lineage.json").write_text(json.dumps(lineage))
        assert_one_line_error(cli(*command, "--adapter", str(moved)), "gone", "give its folder as --reference")

    def test_killed_and_resumed_equals_uninterrupted(self, trained, given, tmp_path):
        output = tmp_path / "adapter"
        command = [sys.executable, "-u", str(ROOT / "recipes" / "dpo.py"), *given(output)]
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in process.stdout:
            if "step 3/4" in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL and not (output / "lineage.json").exists()
        done = recipe("dpo.py", *given(output))
        assert done.returncode == 0 and "checkpoint-2" in done.stdout, done.stderr
        assert largest_difference(trained[0], output) <= 1e-6
        assert losses(output) == pytest.approx(losses(trained[0]), abs=1e-6)
        ranked = [json.loads((folder / "pairs.json").read_text()) for folder in (trained[0], output)]
        assert ranked[0] == ranked[1]

    def test_two_processes_equal_one(self, given, start_of, tiny_model, tmp_path):
        """Two processes with two pairs each take the same steps as one with four."""
        one, two = (
            given(tmp_path / name, per_device_train_batch_size=batch) for name, batch in (("one", 4), ("two", 2))
        )
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [*torchrun, str(ROOT / "recipes" / "dpo.py"), *two]
        apart = subprocess.run(command, capture_output=True, text=True, timeout=600)
        for done, name, processes in ((recipe("dpo.py", *one), "one", 1), (apart, "two", 2)):
            assert done.returncode == 0, done.stderr
            lineage = json.loads((tmp_path / name / "lineage.json").read_text())
            assert lineage["training"]["processes"] == processes
        assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
        assert len(set(losses(tmp_path / "one"))) == 4
        # Adam divides gradients by their size: where a pair's two halves all but cancel, their last digits count.
        moved = largest_difference(tmp_path / "one", start_of(tiny_model))
        assert largest_difference(tmp_path / "one", tmp_path / "two") <= 1e-3 * moved
        one, two = (json.loads((tmp_path / name / "pairs.json").read_text()) for name in ("one", "two"))
        assert one["test_documents"]["accuracy"] == two["test_documents"]["accuracy"]

    def test_nf4_learns_after_an_evaluation(self, given, tmp_path):
        """Without the cure of `trainable_on_cpu` the evaluation at the start takes the gradients away."""
        more = {"load_in_4bit": "true", "dtype": "bfloat16"}
        for name, on_start in (("asked", "true"), ("fresh", "false")):
            done = recipe("dpo.py", *given(tmp_path / name, **more, eval_on_start=on_start))
            assert done.returncode == 0, done.stderr
        assert losses(tmp_path / "asked") == losses(tmp_path / "fresh")
        assert losses(tmp_path / "asked")[0] == pytest.approx(math.log(2), abs=1e-6)
        assert largest_difference(tmp_path / "asked", tmp_path / "fresh") == 0
        before = weights(tmp_path / "asked" / "checkpoint-4" / "ref")
        moved = weights(tmp_path / "asked")
        assert all((moved[key].float() - before[key].float()).abs().max() > 0 for key in moved if "lora_B" in key)

    @pytest.mark.parametrize(
        ("more", "first"),
        [
            ({"loss_type": "ipo", "beta": 0.5}, 1.0),
            ({"loss_type": "hinge"}, 1.0),
            ({"dtype": "bfloat16", "init_adapter": None}, math.log(2)),
        ],
        ids=["ipo", "hinge", "without an adapter"],
    )
    def test_other_losses_and_starts(self, more, first, given, tmp_path):
        less = {"max_steps": 2, "eval_strategy": "no", "eval_on_start": "false", "ranked_pairs": 2}
        flags = given(tmp_path / "out", **less | more)
        if more.get("init_adapter", "") is None:
            place = flags.index("--init_adapter")
            (tmp_path / "own.yaml").write_text("use_peft: true\nlora_target_modules: all-linear\n")
            flags[place : place + 2] = ["--config", str(tmp_path / "own.yaml")]
        done = recipe("dpo.py", *flags)
        assert done.returncode == 0, done.stderr
        assert losses(tmp_path / "out", 2)[0] == pytest.approx(first, abs=1e-5)

    def test_a_run_that_begins_elsewhere_ends_with_a_line(self, given, tmp_path):
        more = {"lora_dropout": 0.5, "disable_dropout": "false", "beta": 50}  # a small difference of log-ratios counts
        flags = given(tmp_path / "out", **more, eval_on_start="false")
        done = recipe("dpo.py", *flags)
        assert_one_line_error(done, "first loss: is", "not 0.6931", "--disable_dropout true")
        assert not (tmp_path / "out" / "lineage.json").exists()

    def test_the_plan_counts_what_the_run_trains_on(self, trained, given, tmp_path):
        yaml = ROOT / "recipes" / "smollm2-135m" / "dpo.yaml"
        done = cli("plan", str(yaml), *given(tmp_path / "out"), "--json")
        assert done.returncode == 0, done.stderr
        plan, training = json.loads(done.stdout), json.loads((trained[0] / "lineage.json").read_text())["training"]
        assert plan["run"]["tokens"] == training["tokens"] and plan["run"]["steps"] == training["steps"]
        assert plan["run"]["rows"] == 24 and plan["run"]["sequences"] == 48 and plan["run"]["padding"] > 0
        assert plan["model"]["trainable"] == training["trainable_parameters"]
        assert plan["memory"]["parts"]["reference"] == plan["memory"]["parts"]["adapter"] > 0
        assert [row["id"].rpartition(" ")[2] for row in plan["shown"]] == ["(chosen)", "(rejected)"] * 3

    def test_a_probe_has_the_reference_too(self, given, tmp_path, monkeypatch):
        from trl import DPOTrainer

        train, adapters = DPOTrainer.train, []
        monkeypatch.setattr(
            DPOTrainer, "train", lambda trainer: (adapters.append({*trainer.model.peft_config}), train(trainer))[1]
        )
        found = plan(ROOT / "recipes" / "smollm2-135m" / "dpo.yaml", given(tmp_path / "out"), probe=True)
        assert found.seconds_per_step > 0 and adapters == [{"default", "ref"}]


WRONG = [
    (["--beta", "0"], ["beta: must be above 0"]),
    (["--loss_type", "sigmod"], ["loss_type: must be one of", "not 'sigmod'", "'sigmoid'"]),
    (["--loss_type", "sigmoid", "ipo", "--loss_weights", "1"], ["loss_weights: are 1 for 2 losses"]),
    (["--use_peft", "false"], ["use_peft: with all weights trained the reference would be a second model"]),
    (["--precompute_ref_log_probs", "true"], ["precompute_ref_log_probs", "those of the base", "leave it out"]),
    (["--sync_ref_model", "true"], ["sync_ref_model", "frozen copy"]),
    (["--padding_free", "true"], ["padding_free: TRL's DPO has it switched off"]),
    (["--loss_type", "exo_pair"], ["label_smoothing: exo_pair needs one above 0"]),
    (["--loss_type", "robust", "--label_smoothing", "0.7"], ["label_smoothing: robust", "not 0.7"]),
    (["--label_smoothing", "0.1"], ["label_smoothing: sigmoid does not read it"]),
    (["--loss_type", "aot", "--use_weighting", "true"], ["use_weighting: aot sorts"]),
    (["--loss_type", "aot", "--f_divergence_type", "forward_kl"], ["f_divergence_type: aot is defined for reverse_kl"]),
    (["--f_divergence_type", "kl"], ["'f_divergence_type' must be one of", "'kl'"]),
    (["--ld_alpha", "2"], ["'ld_alpha' must be between 0 and 1"]),
    (["--truncation_mode", "keep_end"], ["truncation_mode: rows longer than max_length are left out"]),
    (["--max_length", "16"], ["max_length 16: is shorter than the answer of row train/00000.parquet:"]),
    (["--max_length", "300"], ["max_length 300:", "of 24 rows are longer", "set --max_length"]),
    (["--dataset_name", "nowhere"], ["nowhere: no preference pairs there", "instructrec pairs"]),
    (["--held_out_set", "nowhere"], ["nowhere", "not an instruction set"]),
    (["--init_adapter", "nowhere"], ["nowhere", "no adapter_config.json"]),
    (["--eval_items", "0"], ["no validation rows to evaluate on"]),
    (["--max_train_rows", "0"], ["'max_train_rows' must be 1 or more"]),
]


@pytest.mark.parametrize(("flags", "parts"), WRONG, ids=lambda value: " ".join(value)[:40])
def test_wrong_configs_are_one_line(flags, parts, given, tmp_path):
    rest = without(given(tmp_path / "out"), flags)
    assert_one_line_error(recipe("dpo.py", *rest, *flags, cwd=tmp_path), *parts)
    assert not (tmp_path / "out").exists()


class TestPairs:
    @staticmethod
    def pair(number: int, origin: str = "shuffled", **more: object) -> dict:
        place = {"path": f"{number}.txt", "sha256": f"{number:064}", "start": 0, "end": 9, "extractor": "x"}
        pair = {"prompt": said(f"Ask {number}?", "user"), "chosen": said("Yes."), "rejected": said("No.")}
        return pair | {"margin": None, "origin": origin, "source": [place | {"licence": "MIT"}]} | more

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"rejected": said(" Yes. ")}, ["row 1", "'chosen' and 'rejected' are the same answer"]),
            ({"rejected": said("")}, ["row 1", "'rejected' is empty"]),
            ({"chosen": said("Yes.", "user")}, ["row 1", "'chosen' must be one message of role 'assistant'"]),
            ({"prompt": said("Ask?")}, ["row 1", "'prompt' must end with a message of role 'user'"]),
            ({"prompt": said("Ask 5?", "user")}, ["train/00000.parquet:1", "the pair test_documents/00000.parquet:0"]),
            ({"source": "5"}, ["train/00000.parquet:1", "overlaps with the pair test_documents/00000.parquet:0"]),
            ({"origin": "twice"}, ["train/00000.parquet:1", "test_corruptors, which has pairs of 'twice' too"]),
        ],
        ids=["same", "empty", "role", "prompt", "shared prompt", "shared document", "shared corruptor"],
    )
    def test_pairs_that_break_the_contract_are_named(self, change, parts, given, tmp_path):
        change = {"source": self.pair(5)["source"]} if change == {"source": "5"} else change
        splits = {"train": [self.pair(0), self.pair(1) | change], "validation": [self.pair(3)]}
        splits |= {"test_documents": [self.pair(5)], "test_corruptors": [self.pair(6, "twice")]}
        save_splits(tmp_path / "pairs", splits)
        done = recipe("dpo.py", *given(tmp_path / "out", dataset_name=tmp_path / "pairs"))
        assert_one_line_error(done, *parts)

    def test_pairs_of_held_out_rows_are_refused(self, given, instruction_set, tmp_path):
        from instructrec.core.schema import read_split

        row = next(read_split(instruction_set, "test_documents"))
        splits = {"train": [self.pair(0) | {"source": row["source"]}], "validation": [self.pair(3)]}
        save_splits(tmp_path / "pairs", splits | {"test_documents": [], "test_corruptors": []})
        done = recipe("dpo.py", *given(tmp_path / "out", dataset_name=tmp_path / "pairs"))
        assert_one_line_error(done, "train/00000.parquet:0", "overlaps with", str(instruction_set), "row ")

    def test_pairs_of_another_set_than_the_one_that_is_watched_are_told(self, given, pairs, tmp_path):
        folder = shutil.copytree(pairs, tmp_path / "pairs")
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["plan"] = {"set": "other", "fingerprint": "0" * 64}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        yaml, flags = ROOT / "recipes" / "smollm2-135m" / "dpo.yaml", given(tmp_path / "out", dataset_name=folder)
        assert "made from another set (other)" in cli("plan", str(yaml), *flags, "--json").stderr

    def test_changed_files_are_refused(self, given, pairs, tmp_path):
        shutil.copytree(pairs, tmp_path / "pairs")
        (tmp_path / "pairs" / "train" / "00001.parquet").write_bytes(b"PAR1")
        done = recipe("dpo.py", *given(tmp_path / "out", dataset_name=tmp_path / "pairs"))
        assert_one_line_error(done, "its Parquet files changed")


class TestFirstLoss:
    @staticmethod
    def args(**more: object) -> SimpleNamespace:
        known = {"loss_type": ["sigmoid"], "loss_weights": None, "beta": 0.1, "use_weighting": False}
        return SimpleNamespace(**known | {"disable_dropout": True} | more)

    def test_is_known_of_two_losses_and_their_sums(self):
        assert first_dpo_loss(self.args()) == pytest.approx(math.log(2))
        assert first_dpo_loss(self.args(loss_type=["ipo"])) == pytest.approx(25)
        both = self.args(loss_type=["sigmoid", "ipo"], loss_weights=[2.0, 0.5])
        assert first_dpo_loss(both) == pytest.approx(2 * math.log(2) + 12.5)
        assert first_dpo_loss(self.args(loss_type=["hinge"])) is first_dpo_loss(self.args(use_weighting=True)) is None

    def test_is_logged_as_it_is(self):
        args = self.args(logging_first_step=False, logging_nan_inf_filter=True)
        FirstLoss(args, coarse=False)
        assert args.logging_first_step and not args.logging_nan_inf_filter

    @pytest.mark.parametrize(("loss", "cause"), [(0.71, "--init_adapter"), (float("nan"), "not finite")])
    def test_another_one_ends_the_run(self, loss, cause):
        watch, state = FirstLoss(self.args(), coarse=False), SimpleNamespace(global_step=1)
        watch.on_log(self.args(), state, None, {"loss": math.log(2) + 5e-5})
        watch.on_log(self.args(), state, None, {"loss": loss, "aux_loss": 4.1})  # which is in the sum
        watch.on_log(self.args(), SimpleNamespace(global_step=2), None, {"loss": loss})
        with pytest.raises(UserError, match=cause):
            watch.on_log(self.args(), state, None, {"loss": loss})

    @pytest.mark.parametrize("more", [{"loss_type": ["sigmoid", "sft"]}, {"loss_type": ["hinge"]}])
    def test_where_none_is_known_rewards_are_looked_at(self, more):
        watch, state = FirstLoss(self.args(**more), coarse=False), SimpleNamespace(global_step=1)
        watch.on_log(self.args(), state, None, {"loss": 2.1, "rewards/chosen": 5e-5})
        with pytest.raises(UserError, match=r"first rewards/chosen: is 0\.0300 and not 0\.0000"):
            watch.on_log(self.args(), state, None, {"loss": 2.1, "rewards/chosen": 0.03})


class TestWatch:
    REWARDS, WORSE = ["eval_rewards/margins"], {"eval_gold_nll": 0.05, "eval_rouge_l": -0.03}

    @staticmethod
    def history(*evaluations: tuple[float, float, float]) -> list[dict]:
        found: list[dict] = []
        for number, (margin, nll, rouge) in enumerate(evaluations):
            found.append({"step": 10 * number, "loss": 1.0})
            found.append({"step": 10 * number, "eval_rewards/margins": margin})
            found.append({"step": 10 * number, "eval_gold_nll": nll, "eval_rouge_l": rouge})
        return found

    def test_warns_where_the_reward_rises_and_the_held_out_metric_falls(self):
        (line,) = warnings(self.history((0, 2.0, 0.3), (0.4, 1.9, 0.3), (0.9, 2.0, 0.29)), self.REWARDS, self.WORSE)
        assert "since step 10 rewards/margins rose from 0.400 to 0.900" in line
        assert "held-out gold_nll went from 1.900 to 2.000" in line

    @pytest.mark.parametrize(
        "evaluations",
        [
            [(0, 2.0, 0.3)],
            [(0, 2.0, 0.3), (0.9, 1.8, 0.31)],
            [(0, 2.0, 0.3), (0.9, 2.04, 0.28)],  # within noise
            [(0.9, 2.0, 0.3), (0.4, 2.5, 0.1)],  # both fall: no reward is gamed
        ],
        ids=["one", "better", "noise", "both"],
    )
    def test_is_silent_otherwise(self, evaluations):
        assert warnings(self.history(*evaluations), self.REWARDS, self.WORSE) == []

    def test_a_reward_that_the_best_lacks_is_compared_with_its_first(self):
        """As where it is logged from the first step on, and what is held out from before."""
        history = [{"step": 0, "eval_gold_nll": 1.9}, {"step": 5, "reward": 0.4}]
        history += [{"step": 10, "reward": 0.7}, {"step": 10, "eval_gold_nll": 2.2}]
        (line,) = warnings(history, ["reward"], self.WORSE)
        assert "since step 0 reward rose from 0.400 to 0.700" in line
        assert warnings(history[:1] + history[3:], ["reward"], self.WORSE) == []

    def test_a_run_that_ruins_the_model_is_told(self, given, instruction_set, start_of, tmp_path):
        """It learns to say yes, whatever it is asked. With the usual small weights no answer could become unlikely."""
        base = tmp_path / "base"
        save_tiny_model(base, instruction_set, "llama", CHATML, initializer_range=0.3)
        pair = TestPairs.pair
        splits = {"train": [pair(n) for n in range(8)], "validation": [pair(n) for n in range(8, 12)]}
        save_splits(tmp_path / "pairs", splits | {"test_documents": [], "test_corruptors": []})
        more = {"model_name_or_path": base, "init_adapter": start_of(base), "dataset_name": tmp_path / "pairs"}
        more |= {"max_steps": 8, "save_steps": 8, "eval_steps": 8, "learning_rate": 0.1, "ranked_pairs": 0}
        done = recipe("dpo.py", *given(tmp_path / "out", **more))
        assert done.returncode == 0, done.stderr
        history = log_history(tmp_path / "out", 8)
        margins = [entry["eval_rewards/margins"] for entry in history if "eval_rewards/margins" in entry]
        assert margins[0] == 0 < margins[-1]
        assert "warning: since step 0 rewards/margins rose" in done.stderr


def test_a_frozen_copy_has_the_types_of_what_trains(start_of, tiny_model, tmp_path):
    """On a base in 16 bits PEFT would round the copy, so that the policy were not its own reference; dropout too."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import use_adapter

    from instructrec.adapters import read_parent

    folder = shutil.copytree(start_of(tiny_model), tmp_path / "start")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.5}))
    start = read_parent(str(folder), str(tiny_model), tiny_model)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16), start.config)
    start.load_into(model)
    start.load_into(model, "ref")
    parameters = dict(model.named_parameters())
    mine = [path for path in parameters if ".default." in path]
    assert mine and all(parameters[path.replace(".default.", ".ref.")].equal(parameters[path]) for path in mine)
    assert not any(parameters[path.replace(".default.", ".ref.")].requires_grad for path in mine)
    model.train()
    ids = torch.arange(16)[None]
    for name, steady in (("default", False), ("ref", True)):
        with torch.no_grad(), use_adapter(model, name):
            assert model(ids).logits.equal(model(ids).logits) is steady
