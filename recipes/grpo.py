"""Group-relative policy optimization (or RLOO) of an SFT adapter on rewards, with TRL's trainers.

Quickstart's adapter and set, on whatever this machine has:

    accelerate launch recipes/grpo.py

Your own, one GPU, a model in 4 bits:

    accelerate launch --config_file accelerate_configs/single_gpu.yaml recipes/grpo.py --load_in_4bit true \\
        --model_name_or_path Qwen/Qwen3-8B --dataset_name outputs/mine/set --rewards my_rewards.yaml \\
        --init_adapter outputs/mine/adapter --output_dir outputs/mine/grpo

The training rows of a set are asked, several answers are sampled to each, and those that the rewards of a YAML find
better than the others become likelier. Rewards get the columns of a row (targets, checks, choices, language); rows to
which none applies are left out and counted. `--algorithm rloo` is REINFORCE with a leave-one-out baseline.

`--init_adapter` is what training starts from, and with `--beta` above 0 a frozen copy of it is the reference: no second
base model is loaded. The run ends at once if its first KL is not 0. At every evaluation validation rows are answered
for the reward, and the validation rows of `--held_out_set` are scored as instructions; a line warns if the reward rises
while these get worse. A reward that fails ends the run with a line, and the checkpoints stay. The same command again
resumes.
"""

import time
from pathlib import Path

from instructrec.adapters import AdapterArguments, read_parent
from instructrec.config import parse_with_origins, print_help, wants_help
from instructrec.core.errors import run
from instructrec.data import HeldOutArguments
from instructrec.prompts import AlgorithmArguments, PromptsArguments, load_prompts, preflight_prompts, trl_names

DEFAULT_CONFIG = Path(__file__).parent / "smollm2-135m" / "grpo.yaml"


def main() -> None:
    own = (PromptsArguments, AlgorithmArguments, AdapterArguments, HeldOutArguments)
    if wants_help():
        return print_help(__doc__, own)

    from instructrec.runtime import cpu_flags, quiet, use_all_cores

    quiet()
    import trl
    from accelerate import PartialState

    from instructrec.lineage import read_lineage, weights_sha256, write_lineage
    from instructrec.losses import FirstKl
    from instructrec.models import EMBEDDED, load_tokenizer, name_base, resolve_model
    from instructrec.monitor import RewardWatch
    from instructrec.preflight import tokens_of
    from instructrec.saved import save_checked
    from instructrec.training import (
        ProgressLine,
        ending,
        facts,
        held_out,
        make_trainer,
        prepare_output,
        shuffle_by_epoch,
    )

    threads = use_all_cores()
    started = time.time()
    config_of_trl, trainer_of_trl = (getattr(trl, name) for name in trl_names(DEFAULT_CONFIG))
    records = (*own, config_of_trl, trl.ModelConfig)
    (data, chosen, start, watched, args, model), given, origins = parse_with_origins(
        records, DEFAULT_CONFIG, cpu_flags()
    )
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
        trainer_of_trl,
        folder,
        args,
        model,
        tokenizer,
        parent.config if parent else trl.get_peft_config(model),
        reward_funcs=prompts.rewards,
        train_dataset=rows,
        eval_dataset=validation,
        callbacks=[*callbacks, RewardWatch(["eval_reward"]), FirstKl(args, coarse), ProgressLine()],
    )
    shuffle_by_epoch(trainer)
    if parent:
        parent.load_into(trainer.model)
        if args.beta:
            parent.load_into(trainer.model, "ref")
    name_base(trainer.model, name, model.model_revision)
    with ending(trainer):
        result = trainer.train(resume_from_checkpoint=checkpoint)
        read_back = save_checked(trainer, output, (ids for ids, _ in tokens_of(rows, tokenizer)))
    if state.is_main_process:
        write_lineage(
            output,
            chosen.algorithm,
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
            + f" --suite {prompts.watched} --output_dir {output.parent / 'grpo-eval'}"
        )


if __name__ == "__main__":
    run(main)
