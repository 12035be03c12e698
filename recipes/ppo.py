"""Proximal policy optimization of an SFT adapter, for rewards of the answers that it writes itself.

Quickstart's adapter, on the training rows of quickstart's set, on whatever this machine has:

    accelerate launch recipes/ppo.py

Your own, one GPU, a model in 4 bits:

    accelerate launch --config_file accelerate_configs/single_gpu.yaml recipes/ppo.py --load_in_4bit true \\
        --model_name_or_path Qwen/Qwen3-8B --dataset_name outputs/mine/set --rewards rewards.yaml \\
        --init_adapter outputs/mine/adapter --output_dir outputs/mine/ppo

`--rewards` names what an answer is worth (docs/rewards.md); of the rows only prompts are read, and the columns that
rewards ask for. `--init_adapter` is what training starts from, and a frozen copy of it is the reference; without it a
new adapter is trained against the base. The critic is a layer on the same model. What each term of the loss is and
where it comes from is in instructrec/trainers/ppo.py, the keys in docs/ppo.md.

A step is a round of answers and what is learnt of them. At every evaluation validation rows are answered, by the
policy as it draws and greedily, and never trained on; a line warns if the reward rises while greedy answers get worse.
Answers are kept in `samples.jsonl`. The same command again resumes.
"""

import time
from pathlib import Path

from instructrec.adapters import AdapterArguments, read_parent
from instructrec.config import parse_with_origins, print_help, wants_help
from instructrec.core.errors import run
from instructrec.data import HeldOutArguments
from instructrec.prompts import PromptsArguments, load_prompts, preflight_prompts

DEFAULT_CONFIG = Path(__file__).parent / "smollm2-135m" / "ppo.yaml"


def main() -> None:
    if wants_help():
        return print_help(__doc__, [PromptsArguments, AdapterArguments, HeldOutArguments])

    from instructrec.runtime import cpu_flags, quiet, use_all_cores

    quiet()
    from accelerate import PartialState
    from trl import ModelConfig, get_peft_config

    from instructrec.lineage import read_lineage, weights_sha256, write_lineage
    from instructrec.losses import FirstKl
    from instructrec.models import EMBEDDED, load_tokenizer, name_base, resolve_model
    from instructrec.monitor import RewardWatch
    from instructrec.preflight import tokens_of
    from instructrec.saved import save_checked
    from instructrec.trainers.ppo import PPOConfig, PPOTrainer
    from instructrec.training import ProgressLine, ending, facts, held_out, make_trainer, prepare_output

    threads = use_all_cores()
    started = time.time()
    records = (PromptsArguments, AdapterArguments, HeldOutArguments, PPOConfig, ModelConfig)
    (data, start, watched, args, model), given, origins = parse_with_origins(records, DEFAULT_CONFIG, cpu_flags())
    name = model.model_name_or_path or EMBEDDED
    state = PartialState()
    with state.main_process_first():
        folder = resolve_model(name, model.model_revision)
        prompts = load_prompts(data)
    parent = read_parent(start.init_adapter, name, folder)
    tokenizer = load_tokenizer(folder, parent.folder if parent else None)
    if parent:
        given |= parent.take_over(model, origins)
    _, callbacks = held_out(watched, prompts.instructions, args, tokenizer)
    with state.main_process_first():
        rows, counts = preflight_prompts(prompts, folder, tokenizer, args, model)
        validation = prompts.to_evaluate(watched.eval_items, tokenizer, args)
    output = Path(args.output_dir)
    given |= prompts.fingerprints()
    checkpoint = prepare_output(output, given, state)
    state.print(counts)

    coarse = args.bf16 or args.fp16 or model.load_in_4bit or model.load_in_8bit or model.dtype != "float32"
    trainer = make_trainer(
        PPOTrainer,
        folder,
        args,
        model,
        tokenizer,
        parent.config if parent else get_peft_config(model),
        rewards=prompts.rewards,
        train_dataset=rows,
        eval_dataset=validation,
        callbacks=[*callbacks, RewardWatch(["reward"]), FirstKl(args, coarse), ProgressLine()],
    )
    if parent:
        parent.load_into(trainer.model)
        parent.load_into(trainer.model, "ref")
    name_base(trainer.model, name, model.model_revision)
    with ending(trainer):
        result = trainer.train(resume_from_checkpoint=checkpoint)
        read_back = save_checked(trainer, output, (ids for ids, _ in tokens_of(rows, tokenizer)))
    if state.is_main_process:
        write_lineage(
            output,
            "ppo",
            given,
            {
                "model": {"name": name, "revision": model.model_revision, "sha256": weights_sha256(folder)},
                **prompts.inputs(),
                "init_adapter": parent and {"name": start.init_adapter, "sha256": parent.sha256},
                "output": weights_sha256(output),
            },
            started,
            seed=args.seed,
            parent=parent.lineage if parent else read_lineage(folder),
            training=facts(trainer, result, len(rows), threads, read_back),
        )
        print(
            f"saved {output}; score it with: accelerate launch recipes/evaluate.py --model_name_or_path {name}"
            + "".join(f" --adapter {one}" for one in (start.init_adapter, output) if one)
            + f" --suite {prompts.watched} --output_dir {output.parent / 'ppo-eval'}"
        )


if __name__ == "__main__":
    run(main)
