"""Train a reward model on pairs of answers: a score of a whole answer, with TRL's RewardTrainer and LoRA.

Quickstart's pairs, on whatever this machine has:

    accelerate launch recipes/reward.py

Your own, one GPU, a model in 4 bits:

    accelerate launch --config_file accelerate_configs/single_gpu.yaml recipes/reward.py --load_in_4bit true \\
        --model_name_or_path Qwen/Qwen3-8B --dataset_name outputs/mine/pairs --held_out_set outputs/mine/set \\
        --output_dir outputs/mine/reward

The base model's output layer gives way to one number, which is trained with the adapter and saved in it. No pair is
trained on that shares a document with `--held_out_set`'s held-out rows. Validation pairs are ranked at every
evaluation, and a line warns if the margin of the training pairs grows while validation pairs are ranked worse.
Afterwards pairs of unseen documents and unseen kinds of fault are ranked, beside a ranking by length (`pairs.json`).
The same command again resumes.
"""

import time
from pathlib import Path

from instructrec.config import parse_with_origins, print_help, wants_help
from instructrec.core.errors import run
from instructrec.data import HeldOutArguments
from instructrec.preferences.data import PairsArguments, load_pairs

DEFAULT_CONFIG = Path(__file__).parent / "smollm2-135m" / "reward.yaml"


def main() -> None:
    if wants_help():
        return print_help(__doc__, [PairsArguments, HeldOutArguments])

    from instructrec.runtime import cpu_flags, quiet, use_all_cores

    quiet()
    from accelerate import PartialState
    from trl import ModelConfig, RewardConfig, RewardTrainer, get_peft_config

    from instructrec.chat_templates import choose_template
    from instructrec.core.files import write_json
    from instructrec.core.schema import TRAIN, VALIDATION
    from instructrec.lineage import read_lineage, weights_sha256, write_lineage
    from instructrec.memory import SCORES
    from instructrec.models import EMBEDDED, load_tokenizer, name_base, resolve_model
    from instructrec.monitor import RewardWatch
    from instructrec.preferences.model_rankings import rank_with_reward_model
    from instructrec.preferences.rankings import as_lines
    from instructrec.preflight import preflight_pairs, tokens_of_pairs
    from instructrec.saved import save_checked
    from instructrec.trainers.shared_prefix import sharing
    from instructrec.training import ProgressLine, ending, facts, held_out, make_trainer, prepare_output

    threads = use_all_cores()
    started = time.time()
    records = (PairsArguments, HeldOutArguments, RewardConfig, ModelConfig)
    (data, watched, args, model), given, _ = parse_with_origins(records, DEFAULT_CONFIG, cpu_flags())
    name = model.model_name_or_path or EMBEDDED
    state = PartialState()
    with state.main_process_first():
        folder = resolve_model(name, model.model_revision)
        pairs = load_pairs(data)
    tokenizer = load_tokenizer(folder)
    choose_template(tokenizer, args.chat_template_path)
    _, callbacks = held_out(watched, pairs.rows[VALIDATION], args, None)
    with state.main_process_first():
        rows, counts = preflight_pairs(pairs.rows[TRAIN], folder, tokenizer, args, model)
        validation = pairs.to_evaluate(watched.eval_items, tokenizer, args)
    output = Path(args.output_dir)
    given |= {"dataset_fingerprint": pairs.fingerprint}
    checkpoint = prepare_output(output, given, state)
    state.print(counts)

    model.lora_task_type = SCORES
    trainer = make_trainer(
        sharing(RewardTrainer),
        folder,
        args,
        model,
        tokenizer,
        get_peft_config(model),
        train_dataset=rows,
        eval_dataset=validation,
        callbacks=[*callbacks, RewardWatch(["margin", "accuracy"], {"eval_accuracy": -0.05}), ProgressLine()],
    )
    name_base(trainer.model, name, model.model_revision)
    with ending(trainer):
        result = trainer.train(resume_from_checkpoint=checkpoint)
        read_back = save_checked(trainer, output, (ids for (ids, _), _ in tokens_of_pairs(rows, tokenizer)))
        unseen = pairs.unseen(data.ranked_pairs)
        ranked = {split: rank_with_reward_model(trainer.model, tokenizer, its) for split, its in unseen.items()}
    if state.is_main_process:
        write_json(output / "pairs.json", ranked)
        write_lineage(
            output,
            "reward",
            given,
            {
                "model": {"name": name, "revision": model.model_revision, "sha256": weights_sha256(folder)},
                **pairs.inputs(),
                "output": weights_sha256(output),
            },
            started,
            seed=args.seed,
            parent=read_lineage(folder),
            training=facts(trainer, result, len(rows), threads, read_back),
        )
        print(*(line for split, found in ranked.items() for line in as_lines(split, found)), sep="\n")
        print(f"saved {output}")


if __name__ == "__main__":
    run(main)
