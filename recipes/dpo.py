"""Direct preference optimization of an SFT adapter on pairs of answers, with TRL's DPOTrainer.

Quickstart's adapter and pairs, on whatever this machine has:

    accelerate launch recipes/dpo.py

Your own, one GPU, a model in 4 bits:

    instructrec pairs outputs/mine/set --output outputs/mine/pairs
    accelerate launch --config_file accelerate_configs/single_gpu.yaml recipes/dpo.py \\
        --config recipes/qwen3-8b/dpo.yaml --dataset_name outputs/mine/pairs --held_out_set outputs/mine/set \\
        --init_adapter outputs/mine/adapter --output_dir outputs/mine/dpo

`--init_adapter` is what training starts from, and a frozen copy of it is the reference: no second base model is loaded.
Without it a new adapter is trained against the base (a merged model, say). `--loss_type` is sigmoid, ipo or another of
TRL's; with the first two the run ends at once if its first loss is not that of a policy that is its own reference.

At every evaluation the validation rows of `--held_out_set` are asked, which are never trained on; a line warns if
rewards rise while these answers get worse. Afterwards pairs of unseen documents and unseen kinds of fault are ranked,
beside rankings by length and by the reference's likelihood (`pairs.json`). The same command again resumes.
"""

import time
from pathlib import Path

from instructrec.adapters import AdapterArguments, read_parent
from instructrec.config import parse_with_origins, print_help, wants_help
from instructrec.core.errors import run
from instructrec.data import HeldOutArguments
from instructrec.preferences.data import PairsArguments, load_pairs

DEFAULT_CONFIG = Path(__file__).parent / "smollm2-135m" / "dpo.yaml"


def main() -> None:
    if wants_help():
        return print_help(__doc__, [PairsArguments, AdapterArguments, HeldOutArguments])

    from instructrec.runtime import cpu_flags, quiet, use_all_cores

    quiet()
    from accelerate import PartialState
    from trl import DPOConfig, DPOTrainer, ModelConfig, get_peft_config

    from instructrec.core.files import write_json
    from instructrec.core.schema import TRAIN
    from instructrec.lineage import read_lineage, weights_sha256, write_lineage
    from instructrec.losses import FirstLoss
    from instructrec.models import EMBEDDED, load_tokenizer, name_base, resolve_model
    from instructrec.monitor import RewardWatch
    from instructrec.preferences.model_rankings import rank_with_policy
    from instructrec.preferences.rankings import as_lines
    from instructrec.preflight import preflight_pairs, tokens_of_pairs
    from instructrec.saved import save_checked
    from instructrec.trainers.shared_prefix import sharing
    from instructrec.training import ProgressLine, ending, facts, held_out, make_trainer, prepare_output

    threads = use_all_cores()
    started = time.time()
    records = (PairsArguments, AdapterArguments, HeldOutArguments, DPOConfig, ModelConfig)
    (data, start, watched, args, model), given, origins = parse_with_origins(records, DEFAULT_CONFIG, cpu_flags())
    name = model.model_name_or_path or EMBEDDED
    state = PartialState()
    with state.main_process_first():
        folder = resolve_model(name, model.model_revision)
        pairs = load_pairs(data)
    parent = read_parent(start.init_adapter, name, folder)
    tokenizer = load_tokenizer(folder, parent.folder if parent else None)
    if parent:
        given |= parent.take_over(model, origins)
    _, callbacks = held_out(watched, pairs.instructions, args, tokenizer)
    with state.main_process_first():
        rows, counts = preflight_pairs(pairs.rows[TRAIN], folder, tokenizer, args, model)
        validation = pairs.to_evaluate(watched.eval_items, tokenizer, args)
    output = Path(args.output_dir)
    given |= {"dataset_fingerprint": pairs.fingerprint}
    checkpoint = prepare_output(output, given, state)
    state.print(counts)

    coarse = args.bf16 or args.fp16 or model.load_in_4bit or model.load_in_8bit or model.dtype != "float32"
    trainer = make_trainer(
        sharing(DPOTrainer),
        folder,
        args,
        model,
        tokenizer,
        parent.config if parent else get_peft_config(model),
        train_dataset=rows,
        eval_dataset=validation,
        callbacks=[
            *callbacks,
            RewardWatch(["eval_rewards/margins", "eval_rewards/accuracies"]),
            FirstLoss(args, coarse),
            ProgressLine(),
        ],
    )
    if parent:
        parent.load_into(trainer.model)
        parent.load_into(trainer.model, "ref")
    name_base(trainer.model, name, model.model_revision)
    with ending(trainer):
        result = trainer.train(resume_from_checkpoint=checkpoint)
        read_back = save_checked(trainer, output, (ids for (ids, _), _ in tokens_of_pairs(rows, tokenizer)))
        unseen = pairs.unseen(data.ranked_pairs)
        ranked = {split: rank_with_policy(trainer.model, tokenizer, its) for split, its in unseen.items()}
    if state.is_main_process:
        write_json(output / "pairs.json", ranked)
        write_lineage(
            output,
            "dpo",
            given,
            {
                "model": {"name": name, "revision": model.model_revision, "sha256": weights_sha256(folder)},
                **pairs.inputs(),
                "init_adapter": parent and {"name": start.init_adapter, "sha256": parent.sha256},
                "output": weights_sha256(output),
            },
            started,
            seed=args.seed,
            parent=parent.lineage if parent else read_lineage(folder),
            training=facts(trainer, result, len(rows), threads, read_back),
        )
        print(*(line for split, found in ranked.items() for line in as_lines(split, found)), sep="\n")
        print(
            f"saved {output}; score it with: accelerate launch recipes/evaluate.py --model_name_or_path {name}"
            + "".join(f" --adapter {one}" for one in (start.init_adapter, output) if one)
            + f" --suite {data.held_out_set} --output_dir {output.parent / 'dpo-eval'}"
        )


if __name__ == "__main__":
    run(main)
