"""Supervised fine-tuning of a causal LM on an instruction set, with TRL's SFTTrainer and LoRA.

Quickstart's model and data, on whatever this machine has (the set is built if absent):

    accelerate launch recipes/sft.py

Your own data, one GPU, a model in 4 bits:

    instructrec build --corpus my_documents --output outputs/mine/set
    accelerate launch --config_file accelerate_configs/single_gpu.yaml recipes/sft.py \\
        --config recipes/qwen3-8b/sft.yaml --dataset_name outputs/mine/set --output_dir outputs/mine/adapter

Trained is a LoRA adapter (`--use_dora true`, `--use_rslora true`: its kinds), on a base that `--load_in_4bit true` or
`--load_in_8bit true` quantizes; `--use_peft false` trains all weights. `--init_adapter FOLDER` goes on from an adapter
of the same base. What is saved is read back and compared with the model in memory before it counts.

Several sets and raw text, in place of `dataset_name` (in the YAML; see instructrec/mixture.py):

    mixture: [{name: outputs/mine/set, weight: 2}, {name: owner/dataset}, {text: my_documents, share: 0.1}]

The same command again resumes from the last checkpoint. `--report_to tensorboard|trackio|wandb` chooses the tracker.
"""

import time
from pathlib import Path

from instructrec.adapters import AdapterArguments, read_parent
from instructrec.config import parse_with_origins, print_help, wants_help
from instructrec.core.errors import run
from instructrec.data import DataArguments, HeldOutArguments

DEFAULT_CONFIG = Path(__file__).parent / "smollm2-135m" / "sft.yaml"


def main() -> None:
    if wants_help():
        return print_help(__doc__, [DataArguments, AdapterArguments, HeldOutArguments])

    from instructrec.runtime import cpu_flags, quiet, use_all_cores

    quiet()
    from accelerate import PartialState
    from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config

    from instructrec.chat_templates import choose_template
    from instructrec.lineage import read_lineage, weights_sha256, write_lineage
    from instructrec.mixture import load_data
    from instructrec.models import EMBEDDED, load_tokenizer, name_base, resolve_model
    from instructrec.preflight import preflight, tokens_of
    from instructrec.saved import save_checked
    from instructrec.training import ProgressLine, ending, facts, held_out, make_trainer, prepare_output

    threads = use_all_cores()
    started = time.time()
    records = (DataArguments, AdapterArguments, HeldOutArguments, SFTConfig, ModelConfig)
    (data, start, watched, args, model), given, origins = parse_with_origins(records, DEFAULT_CONFIG, cpu_flags())
    name = model.model_name_or_path or EMBEDDED
    state = PartialState()
    with state.main_process_first():
        folder = resolve_model(name, model.model_revision)
        dataset = load_data(data)
    tokenizer = load_tokenizer(folder)
    choose_template(tokenizer, args.chat_template_path, args.assistant_only_loss)
    parent = read_parent(start.init_adapter, name, folder)
    if parent:
        parent.check_template(tokenizer)
        given |= parent.take_over(model, origins)
    validation, callbacks = held_out(watched, dataset.validation, args, tokenizer)
    with state.main_process_first():
        rows, ids, validation = dataset.encode(validation, tokenizer, args)
    rows, counts = preflight(rows, ids, folder, tokenizer, args, model)
    output = Path(args.output_dir)
    given["dataset_fingerprint"] = dataset.fingerprint
    checkpoint = prepare_output(output, given, state)
    state.print(*dataset.uses, counts, sep="\n")

    trainer = make_trainer(
        SFTTrainer,
        folder,
        args,
        model,
        tokenizer,
        parent.config if parent else get_peft_config(model),
        train_dataset=rows,
        eval_dataset=validation,
        callbacks=[*callbacks, ProgressLine()],
    )
    name_base(trainer.model, name, model.model_revision)
    if parent:
        parent.load_into(trainer.model)
    with ending(trainer):
        result = trainer.train(resume_from_checkpoint=checkpoint)
        read_back = save_checked(trainer, output, (ids for ids, _ in tokens_of(rows, tokenizer)))
    if state.is_main_process:
        write_lineage(
            output,
            "sft",
            given,
            {
                "model": {"name": name, "revision": model.model_revision, "sha256": weights_sha256(folder)},
                **dataset.inputs(),
                "init_adapter": parent and {"name": start.init_adapter, "sha256": parent.sha256},
                "output": weights_sha256(output),
            },
            started,
            seed=args.seed,
            parent=parent.lineage if parent else read_lineage(folder),
            training=facts(trainer, result, len(rows), threads, read_back),
        )
        scored = f"{name} --adapter {output}" if model.use_peft else str(output)
        scored += "".join(f" --suite {suite}" for suite in dataset.suites)
        print(
            f"saved {output}; score it with: accelerate launch recipes/evaluate.py --model_name_or_path {scored}"
            f" --output_dir {output.parent / 'eval'}"
        )


if __name__ == "__main__":
    run(main)
