"""Merging adapters into their base model, and the proof that the result answers as base and adapters do.

Adapters are merged in the order of their training, each into the result of those before it, and never into 4-bit
weights, where every sum would be rounded to one of sixteen values. Sums are taken in float32. What was written is read
back and compared with what it was made from, and is given up where the two differ by more than rounding explains.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from instructrec.core.errors import UserError
from instructrec.core.files import new_folder, write_json
from instructrec.core.schema import Estimate
from instructrec.evaluation.contamination import held_out_suites
from instructrec.evaluation.results import item_scores
from instructrec.evaluation.scoring import Scorer
from instructrec.evaluation.statistics import mean_with_interval, paired_difference
from instructrec.evaluation.suites import Item, load_suites
from instructrec.lineage import read_lineage, weights_sha256, write_lineage
from instructrec.models import (
    adapter_config,
    load_model,
    load_tokenizer,
    resolve_model,
    stop_tokens,
    trainable_on_cpu,
    with_adapter,
)

LOGIT_BOUNDS = {"float32": 1e-3, "bfloat16": 2.0}
"""The largest difference of a logit that merging may make, by dtype of the merged weights, computed with in float32.

In float32 only the order of additions differs. In bfloat16 every merged weight is rounded to 8 bits: the likelihood of
held-out answers is the finer measure there, and this bound stands against adapters that were merged twice, wrongly
scaled or broken.
"""

NLL_BOUND = 0.02
"""Nats per token by which the mean likelihood of held-out answers may change, unless the change's interval holds 0."""

PROMPTS, POSITIONS = 8, 32
"""Logits are compared at the last positions of so many prompts with their answers."""

BATCH = 8

FIXED = tuple(
    Item(str(number), "fixed", ({"role": "user", "content": question},), (answer,), None)
    for number, (question, answer) in enumerate(
        [
            ("Name the capital of France.", "The capital of France is Paris."),
            ("Which of these is a fruit: hammer, pear, window?", "A pear is a fruit; a hammer is a tool."),
            ("Write the numbers from one to five.", "one, two, three, four, five"),
            ("Say in one sentence why leaves are green.", "Leaves hold chlorophyll, which reflects green light."),
        ]
    )
)
"""What is asked where no instruction set of the adapters is at hand."""


@dataclass(frozen=True)
class Base:
    """The model that adapters are merged into: its name, its folder and the SHA-256 of its files of weights."""

    name: str
    revision: str | None
    folder: Path
    weights: dict[str, str]


@dataclass(frozen=True)
class HeldOut:
    """Gold NLL per token on `n` held-out items: of the reference, of the merged model, and the paired difference."""

    n: int
    reference: Estimate
    merged: Estimate
    delta: Estimate


@dataclass(frozen=True)
class Difference:
    """How a merged model differs from `reference`, what it was merged from, in words.

    Attributes:
        logits: the largest absolute difference of any logit; null where the reference has quantized weights.
        held_out: null where no held-out items are at hand.
    """

    reference: str
    logits: float | None
    held_out: HeldOut | None

    def sentence(self, dtype: str) -> str:
        """The measured differences beside their bounds."""
        parts = []
        if self.logits is not None:
            parts.append(f"max |Δlogit| {self.logits:.2g} (bound {LOGIT_BOUNDS[dtype]:g})")
        if self.held_out is not None:
            delta, n = self.held_out.delta, self.held_out.n
            low, high = delta["ci95"]
            interval = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"  # one item has none
            parts.append(
                f"held-out gold NLL/token {self.held_out.reference['value']:.4f} → {self.held_out.merged['value']:.4f},"
                f" difference {delta['value']:+.4f}{interval} (bound {NLL_BOUND:g}, n = {n})"
            )
        return f"against {self.reference}: {'; '.join(parts)}"

    def fault(self, dtype: str) -> str | None:
        """What is beyond its bound, or null. NaN is beyond every bound."""
        if self.logits is not None and not self.logits <= LOGIT_BOUNDS[dtype]:
            return f"a logit differs by {self.logits:.2g}, more than {LOGIT_BOUNDS[dtype]:g}"
        if self.held_out is None:
            return None
        delta, (low, high) = self.held_out.delta["value"], self.held_out.delta["ci95"]
        assert delta is not None
        # Weights in full may well be better than the quantized ones that the adapter was trained on.
        within = (delta if self.logits is None else abs(delta)) <= NLL_BOUND
        by_chance = low is not None and high is not None and low <= 0 <= high
        if not within and not by_chance:
            return f"held-out gold NLL/token differs by {delta:+.4f}, more than {NLL_BOUND:g}"
        return None


def merge(
    adapters: Sequence[Path],
    output: Path,
    name: str | None = None,
    dtype: str | None = None,
    suites: Sequence[str] = (),
    max_items: int = 120,
) -> tuple[str, list[Difference]]:
    """Write `output`: the base with the adapters merged into it, tokenizer, template, generation config and lineage.

    Args:
        adapters: in the order of their training, each trained on the result of those before it.
        name: the base; default: the one that the first adapter names.
        dtype: of the merged weights, `float32` or `bfloat16`; default: the base's own.
        suites: what to compare on, as `load_suites` reads them; default: the held-out splits of the sets that the
            adapters were trained on.
        max_items: of these at most.

    Returns:
        The dtype, and how the merged model differs from what it was made from: for every adapter of a chain after its
        merge, and from the quantized base with the adapters, where they were trained on one. Also in `merge.json`.

    Raises:
        UserError: the adapters do not fit the base or each other, the base is quantized, `output` exists, or a
            difference is beyond its bound; nothing is written then.
    """
    started = time.time()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output}: exists already; choose another --output or delete it")
    base = _base(adapters, name)
    _check_chain(adapters, base)
    dtype = _dtype(dtype, base.folder)
    with_tokenizer = (adapter for adapter in reversed(adapters) if (adapter / "tokenizer_config.json").exists())
    tokenizer = load_tokenizer(base.folder, next(with_tokenizer, None))
    items = _items(adapters, suites, max_items)

    as_trained = _quantized_nll(adapters, base.folder, tokenizer, items)
    # Twice the memory of bfloat16; there every sum would be rounded on its way, and the comparison with it.
    model = load_model(base.folder, "float32")
    differences = []
    for number, adapter in enumerate(adapters):
        adapted = with_adapter(model, adapter)
        reference = " + ".join([base.name, *map(str, adapters[: number + 1])])
        before = _measure(adapted, tokenizer, items)
        model = _merged(adapted, adapter)
        if number + 1 < len(adapters):
            differences.append(_difference(reference, before, _measure(model, tokenizer, items)))
    if dtype == "bfloat16":
        _round(model)
    ends = model.generation_config.eos_token_id
    if (stops := stop_tokens(model, tokenizer)) != set(ends if isinstance(ends, list) else [ends]):
        model.generation_config.eos_token_id = sorted(stops)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with new_folder(output) as work:
            model.save_pretrained(work)
            tokenizer.save_pretrained(work)
            del model, adapted
            after = _measure(load_model(work, "float32"), tokenizer, items)
            differences.append(_difference(reference, before, after))
            if as_trained:
                bits, nll = as_trained
                differences.append(_difference(f"the {bits}-bit base of the training", (None, nll), after))
            for difference in differences:
                if fault := difference.fault(dtype):
                    raise UserError(
                        f"merge: against {difference.reference}, {fault}; nothing was written. Check that adapters and "
                        "base are those of the training, or serve them unmerged"
                    )
            write_json(
                work / "merge.json",
                {
                    "dtype": dtype,
                    "bounds": {"logits": LOGIT_BOUNDS[dtype], "nll": NLL_BOUND},
                    "differences": [asdict(difference) for difference in differences],
                },
            )
            config = {"adapters": list(map(str, adapters)), "dtype": dtype, "suite": [*suites], "max_items": max_items}
            inputs = {
                "model": {"name": base.name, "revision": base.revision, "sha256": base.weights},
                "adapters": [
                    {"name": str(adapter), "sha256": weights_sha256(adapter), "lineage": read_lineage(adapter)}
                    for adapter in adapters
                ],
                "output": weights_sha256(work),
            }
            write_lineage(work, "merge", config, inputs, started, parent=read_lineage(adapters[-1]))
    except BlockingIOError:
        raise UserError(f"{output}: another merge is writing it; wait for it or choose another --output") from None
    return dtype, differences


def _base(adapters: Sequence[Path], name: str | None) -> Base:
    """Find the base, and refuse adapters of other models than causal LMs and a base with quantized weights."""
    configs = [adapter_config(adapter) for adapter in adapters]
    for adapter, config in zip(adapters, configs, strict=True):
        if config.get("task_type") not in (None, "CAUSAL_LM"):
            raise UserError(f"adapter {str(adapter)!r}: is of a {config['task_type']} model; merge takes causal LMs")
    named = configs[0]["base_model_name_or_path"]
    if name is None and named is None:
        raise UserError(f"adapter {str(adapters[0])!r}: names no base model; give --model_name_or_path")
    revision = configs[0].get("revision") if name in (None, named) else None
    folder = resolve_model(name or named, revision)
    if method := _quantization_method(folder):
        raise UserError(
            f"model {name or named!r}: its weights are quantized ({method}), and sums would be rounded to that again; "
            "give the model in bf16 or fp32 as --model_name_or_path"
        )
    return Base(name or named, revision, folder, weights_sha256(folder))


def _quantization_method(folder: Path) -> str | None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return (config.get("quantization_config") or {}).get("quant_method")


def _dtype(given: str | None, folder: Path) -> str:
    """The dtype to merge in; a base that is in neither float32 nor bfloat16 goes into float32, which holds both."""
    if given is not None and given not in LOGIT_BOUNDS:
        raise UserError(f"--dtype: must be one of {', '.join(LOGIT_BOUNDS)}, not {given!r}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = config.get("dtype") or config.get("torch_dtype")
    return given or (own if own in LOGIT_BOUNDS else "float32")


def _check_chain(adapters: Sequence[Path], base: Base) -> None:
    """Raise `UserError` unless each adapter was trained on the base with those before it, as far as lineages tell.

    Without a lineage only names can be compared, and only the first adapter's.
    """
    merged: list[dict[str, str]] = []
    for number, adapter in enumerate(adapters):
        grounds, named = _grounds(adapter), adapter_config(adapter)["base_model_name_or_path"]
        if (base.weights, merged) not in grounds:
            quantized = _quantized_name(named)
            if grounds and not quantized:
                raise UserError(_no_chain(adapter, adapters[:number], base.name))
            if number == 0 and not quantized and not _same_model(named, base.name):
                raise UserError(
                    f"adapter {str(adapter)!r}: was trained on {named!r}, not on {base.name!r}; give "
                    f"--model_name_or_path {named}"
                )
            why = f"{named} is quantized" if quantized else "it has no lineage"
            print(f"warning: what {adapter} was trained on is not checked: {why}", file=sys.stderr)
        merged = [*merged, weights_sha256(adapter)]


Grounds = tuple[dict[str, str], list[dict[str, str]]]
"""Hashes of what an adapter was trained on: the weights of a model, and of the adapters that were merged into it."""


def _grounds(adapter: Path) -> list[Grounds]:
    """What an adapter was trained on, as its lineage tells; a model that was merged is also what it was merged from.

    A trainer that merges adapters in memory before it adds its own lists them in `inputs.model.adapters`.
    """
    lineage = read_lineage(adapter)
    model = lineage["inputs"].get("model") if lineage else None
    later: list[dict[str, str]] = []
    grounds = []
    while model:
        later = [*(part["sha256"] for part in model.get("adapters", [])), *later]
        grounds.append((model["sha256"], later))
        below = read_lineage(Path(model["name"])) if Path(model["name"]).is_dir() else None
        if not below or below["stage"] != "merge" or below["inputs"]["output"] != model["sha256"]:
            break
        later = [*(part["sha256"] for part in below["inputs"]["adapters"]), *later]
        model = below["inputs"]["model"]
    return grounds


def _no_chain(adapter: Path, before: Sequence[Path], base: str) -> str:
    """Why an adapter cannot follow those before it."""
    lineage = read_lineage(adapter)
    assert lineage
    name, parent = lineage["inputs"]["model"]["name"], lineage["parent"]
    if before and parent and parent["inputs"].get("output") == weights_sha256(before[-1]):
        return (
            f"adapter {str(adapter)!r}: went on from {str(before[-1])!r} and contains it already; leave "
            f"{str(before[-1])!r} out"
        )
    if before:
        return (
            f"adapter {str(adapter)!r}: was trained on {name!r}, not on what the adapters before it make of {base!r}; "
            "give adapters in the order of their training, or merge it by itself"
        )
    return (
        f"adapter {str(adapter)!r}: was trained on other weights than those of {base!r}; give the base it was trained "
        f"on ({name!r}) as --model_name_or_path, and before it the adapters that were merged into that"
    )


def _same_model(one: str | None, other: str) -> bool:
    return one == other or (one is not None and Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


def _quantized_name(name: str | None) -> bool:
    """Whether a model that is at hand under this name has quantized weights, so that another must be merged into."""
    try:
        return name is not None and _quantization_method(resolve_model(name, weights=False)) is not None
    except UserError:
        return False


def _items(adapters: Sequence[Path], suites: Sequence[str], max_items: int) -> list[Item]:
    """Held-out items with a question and a gold answer, of all suites in turn."""
    names = held_out_suites(adapters, suites)
    found = [items for name in names for items in load_suites([name], 0).values()]
    mixed = [item for row in zip_longest(*found) for item in row if item and item.messages and item.targets]
    if suites and not mixed:
        raise UserError(f"--suite {suites[0]}: no item has a question and a gold answer to compare on")
    return mixed[:max_items]


Measured = tuple[list[torch.Tensor] | None, list[float]]
"""Logits (positions, vocabulary) of each prompt, and each item's gold NLL per token."""


def _measure(model: Any, tokenizer: Any, items: Sequence[Item]) -> Measured:
    scorer = Scorer(model.eval(), tokenizer, BATCH)
    logits = []
    for item in (items or FIXED)[:PROMPTS]:
        text = scorer.render(item) + item.targets[0]
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(model.device)
        with torch.inference_mode():
            logits.append(model(input_ids=inputs, logits_to_keep=POSITIONS).logits[0].float().cpu())
    return logits, _nll(scorer, items)


def _nll(scorer: Scorer, items: Sequence[Item]) -> list[float]:
    answers = scorer.score(items, [0] * len(items))
    return [item_scores(item, answer)["gold_nll"] for item, answer in zip(items, answers, strict=True)]


def _difference(reference: str, before: Measured, after: Measured) -> Difference:
    largest = None
    if before[0] is not None and after[0] is not None:
        largest = float(torch.stack([(a - b).abs().max() for a, b in zip(before[0], after[0], strict=True)]).max())
    held_out = None
    if before[1]:
        delta = paired_difference(after[1], before[1])
        held_out = HeldOut(len(before[1]), mean_with_interval(before[1]), mean_with_interval(after[1]), delta)
    return Difference(reference, largest, held_out)


def _merged(adapted: Any, adapter: Path) -> Any:
    """The base model with the adapter in its weights."""
    try:
        return adapted.merge_and_unload()
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        kind = adapted.peft_config[adapted.active_adapter].peft_type
        reason = str(error).splitlines()[0][:160]
        raise UserError(
            f"adapter {str(adapter)!r}: PEFT cannot merge one of type {getattr(kind, 'value', kind)} ({reason}); serve "
            "it with its base"
        ) from None


def _round(model: Any) -> None:
    """Bring all weights to bfloat16, each to one of its two neighbours, the likelier the nearer that is.

    Most of what an adapter adds to a weight is less than half the distance to its neighbour in bfloat16. Rounded to the
    nearest it would be lost; with stochastic rounding (Gupta et al., 2015, https://arxiv.org/abs/1502.02551, section
    3.1) it stays in the mean, and a matrix adds up many weights. Weights that bfloat16 holds stay as they are.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        bits = parameter.data.cpu().contiguous().view(torch.int32)
        # The upper half of a float32 is a bfloat16: the lower half plus noise carries into it as often as it is large.
        noise = torch.randint(1 << 16, bits.shape, generator=generator, dtype=torch.int32)
        rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
        parameter.data = rounded.to(parameter.device, torch.bfloat16)


def _quantized_nll(
    adapters: Sequence[Path], folder: Path, tokenizer: Any, items: Sequence[Item]
) -> tuple[int, list[float]] | None:
    """Bits of the base that the adapters were trained on and the items' NLL with it, where it was quantized."""
    configs = [(read_lineage(adapter) or {"config": {}})["config"] for adapter in adapters]
    config = next((c for c in configs if c.get("load_in_4bit") or c.get("load_in_8bit")), None)
    if config is None or not items:
        return None
    if len(adapters) > 1 and any(adapter_config(adapter).get("use_dora") for adapter in adapters):
        # DoRA scales what lies below it: the adapters of a chain do not add up unless they are merged.
        print("warning: a chain with DoRA is not compared with the quantized base of the training", file=sys.stderr)
        return None
    from trl import ModelConfig, get_quantization_config

    known = ModelConfig(**{field.name: config[field.name] for field in fields(ModelConfig) if field.name in config})
    model = load_model(folder, known.dtype or "float32", quantization_config=get_quantization_config(known))
    trainable_on_cpu(model)  # the kernel that it would repack for takes only some shapes
    names = [f"adapter{number}" for number in range(len(adapters))]
    for name, adapter in zip(names, adapters, strict=True):
        model = with_adapter(model, adapter, name)
    model.base_model.set_adapter(names)
    return (4 if known.load_in_4bit else 8), _nll(Scorer(model.eval(), tokenizer, BATCH), items)
