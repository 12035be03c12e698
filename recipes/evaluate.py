"""Score a base model and its adapters, zero-shot, on held-out instructions.

The quickstart's adapter against its base, on the four rungs of the set (a train sample, unseen documents, unseen
wordings, unseen tasks):

    accelerate launch recipes/evaluate.py --adapter outputs/quickstart/adapter

Several adapters of one base and several suites (a set, one split of it, JSONL, published task files, raw text) in one
run, over several processes (`torchrun --nproc_per_node 2` on a CPU):

    accelerate launch recipes/evaluate.py --adapter outputs/a --adapter outputs/b \\
        --suite outputs/mine/set --suite my_suite.jsonl --suite held_out_texts/ --output_dir outputs/mine/eval

The same command again goes on where it was interrupted, and asks only what is new. Every number has n and a 95 %
interval; differences are paired by item against the base. The output folder, which all processes must see, gets
scores.json, predictions.jsonl, report.md, report.html and pictures.
"""

import json
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
        metadata={"help": "A set, a split, JSONL, BBH, Super-NI or IFEval files, pairs, raw text; repeatable."},
    )
    output_dir: str = field(default="outputs/quickstart/eval", metadata={"help": "Where the report goes."})
    max_items: int = field(default=40, metadata={"help": "Items per suite at most; 0 means all."})
    shots: int = field(default=0, metadata={"help": "Answered items of its category before each item."})
    max_new_tokens: int | None = field(
        default=None,
        metadata={"help": "Tokens of an answer at most, 0 for none; default: twice what gold answers need."},
    )
    batch_size: int = field(default=16, metadata={"help": "Prompts encoded together."})
    dtype: str = field(
        default="bfloat16", metadata={"help": "Of the weights.", "choices": ["bfloat16", "float16", "float32"]}
    )
    training_set: list[str] = field(
        default_factory=list,
        metadata={"help": "Look for overlap of the suites with these sets; default: what the adapters were tuned on."},
    )
    seed: int = field(default=0, metadata={"help": "Of the bootstrap."})


def main() -> None:
    if wants_help():
        return print_help(__doc__, [EvaluateArguments])

    from instructrec.runtime import quiet, use_all_cores

    quiet()
    import torch
    from accelerate import PartialState
    from rich.progress import Progress

    from instructrec.core.files import write_json, write_text
    from instructrec.core.schema import SPLITS
    from instructrec.evaluation.answers import AnswerStore, ask, model_origin
    from instructrec.evaluation.contamination import overlap, training_sets
    from instructrec.evaluation.report import show, write_report
    from instructrec.evaluation.results import as_predictions, summarise
    from instructrec.evaluation.scoring import Scorer
    from instructrec.evaluation.suites import load_suites
    from instructrec.lineage import read_lineage, weights_sha256, write_lineage
    from instructrec.models import base_of, load_model, load_tokenizer, resolve_model, with_adapter

    use_all_cores()
    started = time.time()
    (args,), _ = parse((EvaluateArguments,), None)
    for key, least in (("max_items", 0), ("shots", 0), ("max_new_tokens", 0), ("batch_size", 1)):
        if (value := getattr(args, key)) is not None and value < least:
            raise UserError(f"--{key}: must be {least} or more, not {value}")
    state = PartialState(cpu=not torch.accelerator.is_available())
    output = Path(args.output_dir)
    suites = load_suites(args.suite, args.max_items, args.shots)
    for name in args.adapter:
        if (base := base_of(Path(name))) not in (args.model_name_or_path, None):
            raise UserError(f"adapter {name!r} belongs to {base!r}; give --model_name_or_path {base}")
    models: dict[str, Path | None] = {args.model_name_or_path: None, **{name: Path(name) for name in args.adapter}}
    if len(models) != 1 + len(args.adapter):
        raise UserError("--adapter: the same name is given twice")
    sets = [Path(name) for name in args.training_set] or training_sets([Path(name) for name in models])
    # A set's own rungs need no search: a set whose rungs overlap with its training rows is refused by training.
    asked = {path for name in args.suite for path in (Path(name).resolve(), Path(name).resolve().parent)}
    own = asked & {path.resolve() for path in sets}
    searched = suites if sets and state.is_main_process else {}
    overlaps = {s: overlap(items, sets) for s, items in searched.items() if not (own and s in SPLITS)}
    with state.main_process_first():
        folder = resolve_model(args.model_name_or_path)
    tokenizer, model = load_tokenizer(folder), load_model(folder, args.dtype)
    weights, scorer = weights_sha256(folder), Scorer(model, tokenizer, args.batch_size)

    store = AnswerStore(output / "answers", state.process_index)
    store.load()
    places = [(suite, item) for suite, items in suites.items() for item in items]
    limits = [n for items in suites.values() for n in scorer.limits(items, args.max_new_tokens)]
    share = (state.process_index, state.num_processes)
    keys: dict[str, list[str]] = {}
    with Progress(disable=not state.is_main_process) as progress:
        for number, (name, adapter) in enumerate(models.items()):
            if adapter is not None:
                model = with_adapter(model, adapter, f"adapter{number}")
                scorer = Scorer(model.eval(), load_tokenizer(folder, adapter), args.batch_size)
            origin = model_origin(weights, adapter, args.dtype, scorer.tokenizer)
            task = progress.add_task(name, total=len(range(*share[:1], len(places), share[1])))
            items = [item for _, item in places]
            keys[name] = ask(scorer, origin, items, limits, store, share, partial(progress.advance, task))
    state.wait_for_everyone()
    state.destroy_process_group()  # the main process goes on alone
    if not state.is_main_process:
        return
    store.load()
    answers: dict[str, dict[str, list]] = {name: {suite: [] for suite in suites} for name in models}
    for name in models:
        for (suite, _), key in zip(places, keys[name], strict=True):
            answers[name][suite].append(store.known[key])

    scores, per_item = summarise(suites, answers, args.seed, overlaps)
    predictions = list(as_predictions(suites, answers, per_item, overlaps))
    write_json(output / "scores.json", scores)
    write_text(output / "predictions.jsonl", "".join(json.dumps(p, ensure_ascii=False) + "\n" for p in predictions))
    write_report(scores, predictions, asdict(args), output, lambda token: tokenizer.decode([token]))
    inputs = {
        "model": {"name": args.model_name_or_path, "sha256": weights, "lineage": read_lineage(folder)},
        "adapters": {a: {"sha256": weights_sha256(Path(a)), "lineage": read_lineage(Path(a))} for a in args.adapter},
    }
    write_lineage(output, "evaluate", asdict(args), inputs, started, seed=args.seed)
    show(scores)
    print(f"report: {output / 'report.html'}")


if __name__ == "__main__":
    run(main)
