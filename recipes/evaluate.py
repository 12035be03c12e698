"""Score a base model and its adapters, zero-shot, on held-out instructions.

The quickstart's adapter against its base, on the four rungs of the set (a train sample, unseen documents, unseen
wordings, unseen tasks):

    accelerate launch recipes/evaluate.py --adapter outputs/quickstart/adapter

Several adapters of one base and several suites (a set, one split of it, or JSONL) in one run:

    accelerate launch recipes/evaluate.py --adapter outputs/a --adapter outputs/b \\
        --suite outputs/mine/set --suite my_suite.jsonl --output_dir outputs/mine/eval

Every number has n and a 95 % interval; differences are paired by item against the base. The output folder gets
scores.json, predictions.jsonl, report.md, report.html and pictures.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from instructrec.config import parse, print_help, wants_help
from instructrec.core.errors import UserError, run


@dataclass
class EvaluateArguments:
    """What to score."""

    model_name_or_path: str = field(
        default="smollm2-135m-q4", metadata={"help": "Base model: embedded, a Hub name or a folder."}
    )
    adapter: list[str] = field(default_factory=list, metadata={"help": "Adapter of that base; repeatable."})
    suite: list[str] = field(
        default_factory=lambda: ["outputs/quickstart/set"],
        metadata={"help": "A set, a split's folder, a JSONL file, BBH or Super-NI task files; repeatable."},
    )
    output_dir: str = field(default="outputs/quickstart/eval", metadata={"help": "Where the report goes."})
    max_items: int = field(default=40, metadata={"help": "Items per suite at most; 0 means all."})
    shots: int = field(default=0, metadata={"help": "Answered items of its category before each item."})
    max_new_tokens: int = field(default=32, metadata={"help": "Tokens of a generated answer at most."})
    batch_size: int = field(default=16, metadata={"help": "Prompts encoded together."})
    dtype: str = field(
        default="bfloat16", metadata={"help": "Of the weights.", "choices": ["bfloat16", "float16", "float32"]}
    )
    seed: int = field(default=0, metadata={"help": "Of the bootstrap."})


def main() -> None:
    if wants_help():
        return print_help(__doc__, [EvaluateArguments])
    if int(os.environ.get("RANK", "0")):
        return  # one process scores, however many were launched

    from instructrec.runtime import quiet, use_all_cores

    quiet()
    from peft import PeftModel
    from rich.progress import Progress

    from instructrec.core.files import write_json, write_text
    from instructrec.evaluation.report import show, write_report
    from instructrec.evaluation.results import summarise
    from instructrec.evaluation.scoring import Scorer
    from instructrec.evaluation.suites import load_suites
    from instructrec.lineage import read_lineage, weights_sha256, write_lineage
    from instructrec.models import base_of, load_model, load_tokenizer, resolve_model

    use_all_cores()
    started = time.time()
    (args,), _ = parse((EvaluateArguments,), None)
    for key, least in (("max_items", 0), ("shots", 0), ("max_new_tokens", 1), ("batch_size", 1)):
        if getattr(args, key) < least:
            raise UserError(f"--{key}: must be {least} or more, not {getattr(args, key)}")
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    suites = load_suites(args.suite, args.max_items, args.shots)
    for adapter in args.adapter:
        if (base := base_of(Path(adapter))) not in (args.model_name_or_path, None):
            raise UserError(f"adapter {adapter!r} belongs to {base!r}; give --model_name_or_path {base}")
    if len({args.model_name_or_path, *args.adapter}) != 1 + len(args.adapter):
        raise UserError("--adapter: the same name is given twice")
    folder = resolve_model(args.model_name_or_path)
    tokenizer, model = load_tokenizer(folder), load_model(folder, args.dtype)

    answers: dict[str, dict] = {}
    total = sum(map(len, suites.values()))
    with Progress() as progress:
        for number, name in enumerate((args.model_name_or_path, *args.adapter)):
            task = progress.add_task(name, total=total)
            if name in args.adapter:
                if isinstance(model, PeftModel):
                    model.load_adapter(name, adapter_name=f"adapter{number}")
                    model.set_adapter(f"adapter{number}")
                else:
                    model = PeftModel.from_pretrained(model, name, adapter_name=f"adapter{number}")
            scorer = Scorer(model.eval(), tokenizer, args.max_new_tokens, args.batch_size)
            answers[name] = {
                suite: scorer.score(items, partial(progress.advance, task)) for suite, items in suites.items()
            }

    scores, per_item = summarise(suites, answers, args.seed)
    predictions = [
        {
            "suite": suite,
            "id": item.id,
            "category": item.category,
            "model": name,
            "prompt": answer.prompt,
            "targets": item.targets,
            "output": answer.output,
            "gold_nll": per_item[name][suite][i]["gold_nll"],
            "scores": per_item[name][suite][i],
        }
        for suite, items in suites.items()
        for i, item in enumerate(items)
        for name in answers
        for answer in [answers[name][suite][i]]
    ]
    write_json(output / "scores.json", scores)
    write_text(output / "predictions.jsonl", "".join(json.dumps(p, ensure_ascii=False) + "\n" for p in predictions))
    write_report(scores, predictions, asdict(args), output)
    inputs = {
        "model": {"name": args.model_name_or_path, "sha256": weights_sha256(folder)},
        "adapters": {a: {"sha256": weights_sha256(Path(a)), "lineage": read_lineage(Path(a))} for a in args.adapter},
    }
    write_lineage(output, "evaluate", asdict(args), inputs, started, seed=args.seed)
    show(scores)
    print(f"report: {output / 'report.html'}")


if __name__ == "__main__":
    run(main)
