"""The `instructrec` command. Each subcommand imports what it needs when it is called, so that `--help` is instant."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from instructrec.core.errors import UserError, nearest, run
from instructrec.preferences import HELD_OUT_PER_ORIGIN, PER_ORIGIN

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Unlabeled data in, an instruction-following adapter with an honest zero-shot report out.",
    epilog="Train with: accelerate launch recipes/sft.py · score with: accelerate launch recipes/evaluate.py",
)


@app.command("base-model")
def base_model(
    name: Annotated[
        str, typer.Argument(help="The embedded model, a Hub name or a folder.", show_default=True)
    ] = "smollm2-135m-q4",
) -> None:
    """Get a base model into the local cache and print its folder."""
    from instructrec.models import resolve_model

    print(resolve_model(name))


@app.command()
def build(
    context: typer.Context,
    corpus: Annotated[
        str | None,
        typer.Option(help="A folder of documents or code, or `python`: what every Python carries. Default: python."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The set's folder.")] = Path("outputs/quickstart/set"),
    config: Annotated[Path | None, typer.Option(help="YAML with any of these keys; flags go before it.")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX identifier of the corpus, written into every row.")] = None,
    record_fields: Annotated[
        str | None,
        typer.Option(
            "--fields", help="Names of the fields of records, as in text=body,title=name. Default: the usual."
        ),
    ] = None,
    families: Annotated[str | None, typer.Option(help="Comma-separated names; default: all.")] = None,
    held_out_groups: Annotated[
        str | None, typer.Option(help="Comma-separated groups of families kept for test_tasks; see `families`.")
    ] = None,
    held_out_templates: Annotated[float | None, typer.Option(help="Share of wordings kept for testing.")] = None,
    test_documents: Annotated[float | None, typer.Option(help="Share of documents kept for testing.")] = None,
    validation_documents: Annotated[float | None, typer.Option(help="Share of documents for validation.")] = None,
    per_document: Annotated[int | None, typer.Option(help="Examples per family and document at most.")] = None,
    turns_per_document: Annotated[
        int | None, typer.Option(help="Join training rows of a document into conversations of so many turns at most.")
    ] = None,
    rows_per_family: Annotated[int | None, typer.Option(help="Training rows per family at most.")] = None,
    heldout_rows_per_family: Annotated[int | None, typer.Option(help="Rows per family in other splits.")] = None,
    answer_words_per_family: Annotated[
        int | None, typer.Option(help="Words in the training answers of a family at most.")
    ] = None,
    gates: Annotated[str | None, typer.Option(help="Comma-separated names of the gates in force, or `none`.")] = None,
    personal_data: Annotated[
        str | None, typer.Option(help="What the privacy gate does with secrets and personal data: mask or drop.")
    ] = None,
    decontaminate: Annotated[
        str | None, typer.Option(help="Comma-separated evaluation files or folders; overlapping rows are removed.")
    ] = None,
    synthesize: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model that also writes instructions and wordings: the embedded smollm2-135m-q4, a Hub name, a"
            " folder, or http(s)://host:port/v1#name of an OpenAI-compatible server (its key in OPENAI_API_KEY).",
        ),
    ] = None,
    synthesize_rows: Annotated[int | None, typer.Option(help="Spans that it is asked about at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every choice.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; the result does not depend on it.")] = os.cpu_count() or 1,
    engine: Annotated[str, typer.Option(help="local or ray; the result does not depend on it.")] = "local",
    slurm: Annotated[
        Path | None, typer.Option(help="Write the Slurm script of this build on several nodes here, and do not build.")
    ] = None,
) -> None:
    """Mine a corpus into an instruction set with five splits, a manifest and a card.

    A build that was interrupted continues; a finished one of the same corpus and config is left alone.
    """
    import time

    from data_builders.config import BuildConfig
    from data_builders.engine import ENGINES, apart
    from data_builders.pipeline import build as build_set
    from instructrec.core.schema import read_manifest
    from instructrec.lineage import describe_set, write_lineage

    flags: dict[str, Any] = {
        "corpus": corpus,
        "licence": licence,
        "fields": None if record_fields is None else _pairs("--fields", record_fields),
        "families": families,
        "held_out_groups": held_out_groups,
        "held_out_templates": held_out_templates,
        "test_documents": test_documents,
        "validation_documents": validation_documents,
        "per_document": per_document,
        "turns_per_document": turns_per_document,
        "rows_per_family": rows_per_family,
        "heldout_rows_per_family": heldout_rows_per_family,
        "answer_words_per_family": answer_words_per_family,
        "gates": "" if gates == "none" else gates,
        "personal_data": personal_data,
        "decontaminate": decontaminate,
        "synthesize": synthesize,
        "synthesize_rows": synthesize_rows,
        "seed": seed,
    }
    values = _read_build_yaml(config, [f.name for f in fields(BuildConfig)]) if config else {}
    values |= {key: value for key, value in flags.items() if value is not None}
    for key in ("families", "held_out_groups", "gates", "decontaminate"):
        if isinstance(value := values.get(key), str):
            values[key] = [name.strip() for name in value.split(",") if name.strip()]
        if key in values:
            values[key] = tuple(values[key])
    if workers < 1:
        raise UserError(f"--workers: must be 1 or more, not {workers}")
    if engine not in ENGINES:
        raise UserError(f"--engine: must be one of {', '.join(ENGINES)}, not {engine!r}")
    started = time.time()
    settings = BuildConfig(**values)
    if slurm is not None:
        _write_slurm(slurm, context)
        return

    writer = None
    if settings.synthesize:
        from instructrec.synthesis import load_writer

        writer = load_writer(settings.synthesize)

    def finish(folder: Path) -> None:
        manifest = read_manifest(folder)
        inputs = {
            "inventory": manifest["corpus"]["inventory"],
            "output": manifest["fingerprint"],
            "set": apart(describe_set, folder),
        }
        inputs |= {"synthesis": writer.identity} if writer else {}
        write_lineage(folder, "build", settings.portable(), inputs, started, seed=settings.seed)

    manifest = build_set(settings, output, workers, finish, engine, writer)
    _show(manifest, output, time.time() - started)
    if empty := [split for split, rows in manifest["splits"].items() if not rows]:
        print(f"warning: no rows in {', '.join(empty)}: the corpus has too few documents to hold that out")
    if failures := sorted(r for r in manifest["corpus"]["skipped"] if r.startswith("family_failed:")):
        print(f"the set is complete but for what these families missed ({', '.join(failures)}); see skipped.jsonl")
        raise typer.Exit(1)


def _write_slurm(path: Path, context: typer.Context) -> None:
    """Write the script of the build that this command line describes."""
    from data_builders.slurm import slurm_script
    from instructrec.core.files import write_text

    if path.exists():
        raise UserError(f"--slurm {path}: exists already; choose another name or delete it")
    arguments = [
        f"{parameter.opts[0]}={context.params[parameter.name]}"
        for parameter in context.command.params
        if parameter.name not in (None, "slurm", "workers", "engine")
        and str(context.get_parameter_source(parameter.name)).endswith("COMMANDLINE")
    ]
    write_text(path, slurm_script(path.name, arguments))
    print(f"{path}: written; set its #SBATCH lines and its environment, then: sbatch {path}")


def _pairs(flag: str, text: str) -> dict[str, str]:
    """`a=b,c=d` as a mapping."""
    pairs: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = map(str.strip, part.partition("="))
        if not equals:
            raise UserError(f"{flag}: must be pairs such as text=body,title=name, not {part!r}")
        pairs[key] = value
    return pairs


def _read_build_yaml(path: Path, known: list[str]) -> dict[str, Any]:
    """The keys of a build config. Raises `UserError` naming an unknown key or a value of the wrong type."""
    from data_builders.config import BuildConfig
    from instructrec.config import check_types, read_yaml

    values = read_yaml(path)
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}.{nearest(str(key), known)}")
    check_types(values, BuildConfig, str(path))
    shares = ("held_out_templates", "test_documents", "validation_documents")
    return values | {key: float(values[key]) for key in shares if key in values}  # YAML reads 2e-1 as text


def _show(manifest: Any, output: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("family", "group", "rows", "rejected", title=f"{output} in {seconds:.0f} s")
    for name, family in manifest["families"].items():
        rejected = ", ".join(f"{gate} {n}" for gate, n in family["rejected"].items())
        table.add_row(name, family["group"], str(family["rows"]), rejected)
    console = Console()
    console.print(table)
    console.print(" · ".join(f"{split} {rows}" for split, rows in manifest["splits"].items()))
    corpus = manifest["corpus"]
    skipped = ", ".join(f"{n} {reason}" for reason, n in corpus["skipped"].items())
    console.print(
        f"{corpus['documents']} documents, {corpus['bytes'] / 1e6:.1f} MB; files skipped: {skipped or 'none'}"
    )


@app.command()
def chat(
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="The output folder of a recipe; repeatable: all answer. Default: the base alone."),
    ] = None,
    model_name_or_path: Annotated[
        str | None, typer.Option("--model_name_or_path", help="Default: the adapter's base, else the embedded model.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt; /system changes it.")] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Where /pick draws from, as --suite of recipes/evaluate.py; repeatable. Default: the held-out splits"
            " of the sets that the adapters were trained on."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens in a reply at most.")] = 256,
) -> None:
    """Talk to a model in the terminal, or to several adapters of one base at once.

    Ctrl-C stops a reply, Ctrl-D ends; /help lists the commands, of which /pick asks a held-out instruction.
    """
    from instructrec.chat import chat as talk

    talk(adapter or [], model_name_or_path, system, suite or [], max_new_tokens)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN [RUN]...",
            help="FOLDER[:MODEL] of an evaluation, or several joined by commas, one per training seed.",
        ),
    ],
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric of scores.json but macro_f1, such as gold_nll; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the findings here, as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Say what may be claimed about the difference between evaluated models.

    Every run is compared with the first, item by item: a bootstrap over seeds, families and items, a permutation of
    whole families, and Holm's correction for all comparisons made. Without a model, a folder stands for its last one.

    instructrec compare outputs/quickstart/eval:smollm2-135m-q4 outputs/quickstart/eval --metric gold_nll
    """
    from instructrec.core.errors import nearest
    from instructrec.core.files import write_json
    from instructrec.evaluation.compare import METRICS, as_json, load_arm, warnings
    from instructrec.evaluation.compare import compare as compare_arms

    for name in metric or ():
        if name not in METRICS:
            raise UserError(f"--metric: {name!r} is not one.{nearest(name, METRICS)}")
    if len(runs) < 2:
        raise UserError("compare: give two runs or more, such as outputs/a/eval outputs/b/eval")
    findings = compare_arms([load_arm(run) for run in runs], metric or ["gold_nll"], seed)
    for finding in findings:
        print(finding.sentence())
    for warning in warnings(findings):
        print(f"warning: {warning}")
    if output is not None:
        write_json(output, as_json(findings))


@app.command()
def export(
    suite: Annotated[
        list[str],
        typer.Argument(metavar="SUITE [SUITE]...", help="Whatever --suite of recipes/evaluate.py takes."),
    ],
    output: Annotated[Path, typer.Option(help="Where the tasks go; they work only from there.")],
    shots: Annotated[int, typer.Option(min=0, help="Answered items of its category before each item.")] = 0,
) -> None:
    """Write suites as tasks for lm-evaluation-harness, which then asks a model what recipes/evaluate.py asks."""
    from instructrec.evaluation.export import export as write_tasks
    from instructrec.evaluation.suites import load_suites

    exported = write_tasks(load_suites(suite, 0, shots), output)
    for task in exported:
        counts = ", ".join(f"{n} {kind}" for kind, n in task.items.items())
        left_out = f"; {task.left_out} that only checks can judge are left out" if task.left_out else ""
        print(f"{task.task}: {counts}{left_out}")
    names = ",".join(task.task for task in exported)
    print(
        f"lm_eval run --model hf --model_args pretrained=MODEL,dtype=float32,add_bos_token=False --apply_chat_template"
        f" --include_path {output} --tasks {names}"
    )


@app.command()
def families(
    folder: Annotated[
        Path | None, typer.Option("--set", help="An instruction set: how many rows each family has there, and rejects.")
    ] = None,
) -> None:
    """List the families: what each asks, its group, its wordings, and what it gave in a set.

    Families of one group are held out together; those marked with a star are, by default.
    """
    from rich.console import Console
    from rich.table import Table

    from data_builders.families import families as all_families
    from data_builders.groups import HELD_OUT_GROUPS
    from instructrec.core.schema import read_manifest

    found = read_manifest(folder)["families"] if folder else {}
    table = Table("family", "group", "asks", "wordings", *(("rows", "rejected") if folder else ()), box=None)
    for name, family in sorted(all_families().items(), key=lambda pair: (pair[1].kind, pair[1].group, pair[0])):
        counted = [(len(family.follow_ups[language]), len(ts), language) for language, ts in family.templates.items()]
        wordings = ", ".join(f"{n} {language}" + (f" + {more}" if more else "") for more, n, language in counted)
        asks = f"{family.signal} off: {family.off}" if family.off else family.signal
        cells = [name, family.group + " *" * (family.group in HELD_OUT_GROUPS), asks, wordings]
        if folder:
            entry = found.get(name)
            rows, rejected = (entry["rows"], sum(entry["rejected"].values())) if entry else (0, 0)
            cells += [f"{rows:,}", f"{rejected / (rows + rejected):.0%}" if rejected else "–"]
        table.add_row(*cells)
    console = Console()
    console = console if console.is_terminal and console.width >= 120 else Console(width=150)
    console.print(table)


@app.command()
def init(
    corpus: Annotated[str, typer.Option(help="A folder of documents or code, a file, or `python`.")],
    output: Annotated[
        Path | None, typer.Option(help="Where the two YAMLs go. Default: outputs/ and the corpus's name.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="To be tuned: the embedded model, a Hub name or a folder.", show_default=True)
    ] = "smollm2-135m-q4",
) -> None:
    """Look into a corpus, and propose how to build a set from it and train on it.

    A fixed sample of its files is read and mined, which takes seconds for a corpus of any size. Then build.yaml and
    sft.yaml are written, with what was seen and what to expect as comments, and the next commands are printed.

    instructrec init --corpus my_documents
    """
    import re
    import shlex

    from rich.console import Console

    from data_builders import proposal
    from data_builders.documents import PYTHON
    from data_builders.forecast import survey
    from data_builders.pipeline import refuse_nested
    from instructrec.core.files import one_line
    from instructrec.core.schema import TRAIN, VALIDATION
    from instructrec.first_recipe import BASE, RECIPES, count_tokens, epoch, sft_yaml
    from instructrec.models import tokenizer_at_hand

    name = corpus if corpus == PYTHON else Path(corpus).resolve().name
    folder = output or Path("outputs", re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "corpus")
    refuse_nested(corpus, folder)
    tokenizer_at_hand(model)  # a name that is none is told before the corpus is read
    with Console(stderr=True).status("reading a sample of the corpus"):
        found = survey(corpus)
        forecast = found.forecast
        tokens = count_tokens([(row.weight, row.prompt, row.completion) for row in forecast.training], model)
    one_epoch = epoch(tokens, forecast.exact)

    def command(*words: str | Path) -> str:
        return one_line(shlex.join(map(str, words)), 10_000)

    script = RECIPES / "sft.py"
    script = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    build_file, sft_file = folder / "build.yaml", folder / "sft.yaml"
    build_set = command("instructrec", "build", "--config", build_file, "--output", folder / "set")
    plan_run = command("instructrec", "plan", sft_file, "--probe")
    train = command("accelerate", "launch", script, "--config", sft_file)
    workers = os.cpu_count() or 1
    time = (
        f"{proposal.duration(forecast.seconds / workers)} to build, by the speed of the sample, if {workers} processors"
        " have nothing else to do"
    )
    size = f"about {round(tokens.total, -3):,} tokens ({tokens.by}), {one_epoch.steps:,} steps for one epoch"
    training = f"{proposal.in_words(forecast.splits[TRAIN])} training rows, {size}"
    notes = [
        f"Proposed by `instructrec init`, from {BASE.relative_to(RECIPES.parent)}.",
        f"  {train}",
        f"expect: {training}",
        f"max_length holds the longest row that was seen, {tokens.longest:,} tokens",
        "time and memory: not known before the set is built; then this measures them here:",
        f"  {plan_run}",
    ]
    evaluated = forecast.splits[VALIDATION].low > 0
    _propose(
        {
            build_file: proposal.build_yaml(found, build_set, time),
            sft_file: sft_yaml(model, folder, one_epoch, evaluated, notes),
        }
    )
    console = Console()
    proposal.show(found, console if console.is_terminal else Console(width=120))
    print(f"training: {size}\ntime: {time}; for the training, `plan --probe` below measures it")
    for warning in proposal.warnings(found):
        print(f"warning: {warning}")
    print(f"\nread {one_line(str(build_file))} and {one_line(str(sft_file))}, then:")
    print(f"  {build_set}\n  {plan_run}\n  {train}")


def _propose(files: dict[Path, str]) -> None:
    """Write YAMLs, unless there are some already; those that say the same are left as they are.

    Raises:
        UserError: one of them is there and says something else; then none is written.
    """
    import yaml

    from instructrec.config import read_yaml
    from instructrec.core.files import write_text

    for path in filter(Path.exists, files):
        old, new = read_yaml(path), yaml.safe_load(files[path])
        if keys := sorted(str(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
            raise UserError(
                f"{path}: is there already, with another {', '.join(keys[:3])}; delete it or choose another --output"
            )
    for path, text in files.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="An instruction set, or the folder of an evaluation.")],
    output: Annotated[Path | None, typer.Option(help="The page. Default: inspect.html in the set's folder.")] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="What the set was built from, to show sources beside rows. Default: `python` if it was so."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A model (embedded, Hub name or folder): shows which tokens are supervised.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of each family in each split.")] = 20,
) -> None:
    """Write one HTML page that shows a set: counts, rows beside their sources, token masks, rejects.

    The page loads nothing, so that it can be opened from disk and passed on. An evaluation has its page already; its
    place is printed.
    """
    if (folder / "scores.json").exists():
        page = folder / "report.html"
        if not page.exists():
            raise UserError(f"{folder}: holds scores but no report.html; run recipes/evaluate.py again")
        if (output, corpus, tokenizer) != (None, None, None):
            raise UserError(f"{folder}: an evaluation, whose page is {page}; give inspect no options with it")
        print(page)
        return
    from data_builders.documents import PYTHON
    from data_builders.inspection import inspect as write_page
    from instructrec.core.schema import read_manifest

    if corpus is None and read_manifest(folder)["config"].get("corpus") == PYTHON:
        corpus = PYTHON
    tokens = _token_texts(tokenizer) if tokenizer else None
    print(write_page(folder, output or folder / "inspect.html", rows, corpus, tokens))


def _token_texts(name: str) -> Any:
    """What `data_builders.inspection` calls to split a row into tokens, prompt and completion parted as TRL does."""
    from itertools import pairwise

    from instructrec.runtime import quiet

    quiet()
    from instructrec.data import common_prefix
    from instructrec.models import load_tokenizer, resolve_model

    tokenizer = load_tokenizer(resolve_model(name))

    def texts(prompt: list[dict[str, str]], completion: list[dict[str, str]]) -> tuple[list[str], int]:
        alone = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        rendered = tokenizer.apply_chat_template(prompt + completion, tokenize=False)
        asked = tokenizer(alone, add_special_tokens=False)["input_ids"]
        whole = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
        ids = whole["input_ids"]
        # Supervision begins where the prompt alone and the whole row part, which can be before the prompt's end.
        given = common_prefix(asked, ids)
        if not tokenizer.is_fast:
            return [tokenizer.decode([token]) for token in ids], given
        # A token that is part of a character begins where the character does, and the last part gets all of it.
        starts = [0, *(start for start, _ in whole["offset_mapping"][1:]), len(rendered)]
        return [rendered[a:b] for a, b in pairwise(starts)], given

    return texts


@app.command()
def merge(
    adapter: Annotated[
        list[Path],
        typer.Argument(metavar="ADAPTER [ADAPTER]...", help="In the order of training, each on those before it."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="The merged model's folder. Default: merged, beside the last adapter.")
    ] = None,
    model_name_or_path: Annotated[
        str | None, typer.Option("--model_name_or_path", help="The base. Default: the one the first adapter names.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16. Default: the base's own.")] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="What to compare on, as --suite of recipes/evaluate.py; repeatable. Default: the held-out splits of"
            " the sets that the adapters were trained on."
        ),
    ] = None,
    max_items: Annotated[int, typer.Option(min=1, help="Items to compare on at most.")] = 120,
) -> None:
    """Merge adapters into their base and prove that the result answers as they did.

    The result is a model folder with tokenizer, chat template and lineage. It is read back and compared with base and
    adapters, by logits and by the likelihood of held-out answers; beyond the bounds nothing is left.

    instructrec merge outputs/quickstart/adapter
    """
    from instructrec.runtime import quiet

    quiet()
    from instructrec.merge import merge as merge_adapters

    place = output or adapter[-1].with_name("merged")
    merged_dtype, differences = merge_adapters(adapter, place, model_name_or_path, dtype, suite or [], max_items)
    for difference in differences:
        print(difference.sentence(merged_dtype))
    if all(difference.held_out is None for difference in differences):
        print("held-out answers were not compared: the adapters' set is not at hand; --suite names another")
    print(f"merged in {merged_dtype}: {place}")


@app.command()
def pairs(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[SET]", help="An instruction set; with --mentor it may be left out.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder of the pairs.")] = Path("outputs/quickstart/pairs"),
    samples: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Pair this model's best and worst samples: embedded, Hub name or folder."),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="With --samples: an adapter of that model.")] = None,
    rewards: Annotated[
        Path | None, typer.Option(help="With --samples: a rewards YAML, by which they are ranked.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", min=2, help="Samples of each prompt. Default: 8.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the sampling. Default: 1.")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a sample at most. Default: twice what its family's answers need."),
    ] = None,
    mentor: Annotated[
        Path | None, typer.Option(help="Pair scored responses instead: JSONL of prompt, completion, rewards, policy.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of each split that are used at most. Default: all; 200 of samples.")
    ] = None,
    per_corruptor: Annotated[
        int, typer.Option(min=1, help="Training pairs of each corruptor or origin at most.")
    ] = PER_ORIGIN,
    heldout_per_corruptor: Annotated[
        int, typer.Option(min=1, help="The same, in each other split.")
    ] = HELD_OUT_PER_ORIGIN,
    held_out_corruptors: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated corruptors for test_corruptors alone; see docs/preferences.md for the default."
        ),
    ] = None,
    balance: Annotated[
        bool, typer.Option(help="Leave pairs out until length tells nothing about which answer is better.")
    ] = True,
    reference: Annotated[
        str | None,
        typer.Option(metavar="MODEL[:ADAPTER]", help="Also rank the pairs by this model's likelihood of the answers."),
    ] = None,
    reference_pairs: Annotated[int, typer.Option(min=1, help="Pairs of each split that it ranks at most.")] = 200,
    seed: Annotated[int, typer.Option(help="Of every choice.")] = 0,
) -> None:
    """Make preference pairs without labels, and say how far length or likelihood alone ranks them.

    Of a set: right against corrupted answers. With --samples: a model's best against its worst answer under rewards.
    With --mentor: responses that got different scores. Pairs keep the splits of the set; test_corruptors has unseen
    documents and unseen ways to corrupt an answer. The same command again goes on where one was interrupted.

    instructrec pairs outputs/quickstart/set --reference smollm2-135m-q4
    """
    from instructrec.preferences.build import Request, make
    from instructrec.preferences.rank import rank_folder, reference_of, show

    if reference:
        reference_of(reference)  # a mistake in it is told before pairs are made
    if temperature is not None and not 0 < temperature < math.inf:
        raise UserError(f"--temperature: must be a finite number above 0, not {temperature:g}")
    request = Request(
        folder=folder,
        samples=samples,
        adapter=adapter,
        rewards=rewards,
        n=n,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        mentor=mentor,
        rows=rows,
        per_corruptor=per_corruptor,
        heldout_per_corruptor=heldout_per_corruptor,
        held_out_corruptors=None if held_out_corruptors is None else _names(held_out_corruptors),
        balance=balance,
        seed=seed,
    )
    manifest = make(request, output)
    show(manifest, output, rank_folder(output, reference, reference_pairs))


@app.command()
def rank(
    folder: Annotated[Path, typer.Argument(metavar="PAIRS", help="A folder of preference pairs.")],
    adapter: Annotated[Path, typer.Option(help="Of recipes/dpo.py, recipes/reward.py or recipes/sft.py.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="The adapter it is compared with. Default: what it was trained on from, else the base."),
    ] = None,
    most: Annotated[int, typer.Option("--pairs", min=1, help="Pairs of each unseen split at most.")] = 200,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of a language model's base: bfloat16, float16 or float32. Default: bfloat16."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, every origin too.")] = False,
) -> None:
    """Rank unseen pairs with a finished adapter, as the recipe did after training.

    By the implicit reward of a language model's adapter, or by a reward model's, beside rankings that know nothing.

    instructrec rank outputs/quickstart/pairs --adapter outputs/quickstart/dpo
    """
    import json

    from instructrec.preferences.rank import rank_adapter
    from instructrec.preferences.rankings import as_lines

    if dtype is not None and dtype not in (known := ("bfloat16", "float16", "float32")):
        raise UserError(f"--dtype: must be one of {', '.join(known)}, not {dtype!r}.{nearest(dtype, known)}")
    found = rank_adapter(folder, adapter, reference, most, dtype)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print(*(line for split, one in found.items() for line in as_lines(split, one)), sep="\n")


def _names(text: str) -> tuple[str, ...]:
    """`a, b` as names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def plan(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG [--KEY VALUE]...", help="The YAML of a recipe.")],
    accelerate: Annotated[
        Path | None, typer.Option(help="A file of accelerate_configs/. Default: one process on this machine.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="sft, dpo, reward, grpo or ppo. Default: what the YAML is named, else sft.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Also load the weights and time three steps here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a training run will take before any weight is read.

    Its config and where each value is from, parameters, memory of each device by part, tokens, steps, padding and
    truncation, and three rows or pairs with their supervised tokens in colour. Keys of the recipe may follow the YAML.

    instructrec plan recipes/smollm2-135m/sft.yaml --max_length 1024
    """
    import json

    from rich.console import Console

    from instructrec.runtime import quiet

    quiet()
    from instructrec.plan import plan as plan_run
    from instructrec.plan import show

    if config.name.startswith("--"):
        raise UserError(f"command line: the YAML comes first: instructrec plan CONFIG {config} ...")
    found = plan_run(config, context.args, accelerate, probe, recipe)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        console = Console()
        show(found, console if console.is_terminal else Console(width=120))


@app.command()
def publish(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The output folder of a recipe, or an instruction set.")
    ],
    repo: Annotated[str, typer.Option(metavar="USER/NAME", help="Where it goes; created if it is not there.")],
    dataset: Annotated[bool, typer.Option("--dataset", help="FOLDER is an instruction set.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Only for those whom you let in.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and list what would go out; needs no token and no network.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME[@REVISION]",
            help="Where readers find the base; its weights must be those of the training. Default: as in training.",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="The adapter's evaluation. Default: `eval` beside it, if it scored these weights."),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(metavar="USER/SET", help="A published set that it was trained on, for the card; repeatable."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the adapter, by the Hub's name (apache-2.0). Default: the base's.")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also every checkpoint, each as a branch of its name.")
    ] = False,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Compare what was sent byte by byte, without loading the base.")
    ] = False,
    card: Annotated[Path | None, typer.Option(help="Also write the card here, to read it before it goes out.")] = None,
    licences: Annotated[
        Path | None, typer.Option(help="With --dataset: a YAML of licences that the table lacks, as in MY-1.0: true.")
    ] = None,
) -> None:
    """Publish an adapter or an instruction set on the Hub, then download it again and compare.

    Goes out: weights, tokenizer, chat template, a card made from the lineage, the lineage, scores and their pictures.
    Never: optimizer states, training_args.bin, ref/. Refused: a secret anywhere in the folder, personal data in what
    goes out, a base with other weights, rows whose licence does not allow it. The token is that of `hf auth login` or
    HF_TOKEN. The same command again goes on where one was interrupted.

    instructrec publish outputs/mine/adapter --repo me/mine --dry-run
    """
    from instructrec.publish import publish_adapter, publish_set

    adapter_only = {
        "--base": base,
        "--evaluation": evaluation,
        "--trained-on": trained_on,
        "--licence": licence,
        "--checkpoints": checkpoints,
        "--files-only": files_only,
        "--card": card,
    }
    for flag, given in adapter_only.items() if dataset else {"--licences": licences}.items():
        if given:
            raise UserError(f"{flag}: is for {'an adapter, not a set' if dataset else 'a set; give --dataset with it'}")
    if dataset:
        publish_set(folder, repo, private, dry_run, licences)
    else:
        publish_adapter(
            folder,
            repo,
            private,
            dry_run,
            base=base,
            evaluation=evaluation,
            trained_on=trained_on or (),
            licence=licence,
            checkpoints=checkpoints,
            files_only=files_only,
            card=card,
        )


rewards = typer.Typer(help="What responses are worth, by a YAML of rewards (docs/rewards.md).")
app.add_typer(rewards, name="rewards")


@rewards.command("score")
def rewards_score(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="JSONL of prompt, completion, and what rewards need: targets, checks, language, …"
        ),
    ],
    config: Annotated[Path, typer.Option("--rewards", metavar="YAML", help="A list of {name, weight, args}.")],
    seconds: Annotated[float, typer.Option(help="For a call of a reward, of 64 rows, at most.")] = 60,
) -> None:
    """Print every response's rewards as a line of JSON, and their means to the error stream.

    `reward` is the weighted mean of those that apply; one that does not apply to a row is null.

    instructrec rewards score responses.jsonl --rewards rewards.yaml
    """
    import json
    import math
    from statistics import fmean

    from instructrec.rewards.load import load_rewards
    from instructrec.rewards.score import score_file

    if not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"--seconds: must be a finite number above 0, not {seconds:g}")
    found: dict[str, list[float]] = {}
    count = 0
    for row, values, reward in score_file(file, load_rewards(config, seconds)):
        count += 1
        print(json.dumps({"id": row, "reward": reward, "rewards": values}))
        for name, value in {**values, "R": reward}.items():
            found.setdefault(name, []).extend([] if value is None else [value])
    for name, numbers in found.items():
        mean = f"{fmean(numbers):.4f}" if numbers else "applies to no row"
        print(f"{name}: {mean} ({len(numbers)} of {count} rows)", file=sys.stderr)


@app.command()
def trace(
    row: Annotated[str, typer.Argument(metavar="ID", help="A row's id, or its first 6 hex digits or more.")],
    folder: Annotated[Path, typer.Option("--set", help="The instruction set.")] = Path("outputs/quickstart/set"),
    corpus: Annotated[
        str | None, typer.Option(help="What the set was built from. Default: `python` if it was so.")
    ] = None,
) -> None:
    """Show the bytes that a row was made from, and derive the row from them again.

    Exit code 1 means that the row could not be derived again; what differs is printed.
    """
    from data_builders.trace import trace as trace_row

    text, identical = trace_row(folder, row, corpus)
    print(text)
    if not identical:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: a user's mistake, a wrong flag included, is one line and exit code 2."""
    run(_command)


def _command() -> None:
    from typer.exceptions import Abort, TyperException

    if not sys.argv[1:]:
        sys.argv.append("--help")
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        raise UserError(f"command line: {error.format_message()}") from None
    except Abort:
        raise KeyboardInterrupt from None
    if code == 130:  # how typer reports Ctrl-C
        raise KeyboardInterrupt
    raise SystemExit(code)
