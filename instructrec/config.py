"""Strict configuration: YAML < command line, every key known, every value of its type, and one line when it is not."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from instructrec.core.errors import UserError, nearest

FORBIDDEN = {
    "hub_token": "a token is never read from a file or flag; log in with `hf auth login` or set HF_TOKEN",
    "push_to_hub": "it would upload training_args.bin and checkpoints too; use `instructrec publish` when it is done",
    "trust_remote_code": "code from a model repository is never run here",
    "model_init_kwargs": "it is made from dtype and attn_implementation; set those",
    "fsdp": "how processes share a model is for the launcher; use accelerate_configs/fsdp2.yaml",
    "deepspeed": "how processes share a model is for the launcher; use accelerate_configs/zero3.yaml",
    "resume_from_checkpoint": "the same command again resumes by itself; leave it out",
}
"""Keys that TRL knows and this project refuses, with the reason."""

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
    "group_by_length": "train_sampling_strategy",
    "lora_rank": "lora_r",
    "max_seq_length": "max_length",
    "no_cuda": "use_cpu",
    "torch_dtype": "dtype",
    "warmup_ratio": "warmup_steps",
}
"""Keys of earlier versions and of other projects, by their name here.

`gradient_checkpointing` still works in transformers 5, but loses against the new name wherever that one stands.
"""

RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    key: (wording, fits)
    for wording, fits, keys in (
        (
            "1 or more",
            lambda n: n >= 1,
            "lora_r lora_alpha per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps "
            "eval_accumulation_steps save_total_limit patience dataset_num_proc dataloader_prefetch_factor "
            "max_train_rows max_prompt_length max_completion_length num_generations_eval num_iterations "
            "steps_per_generation",
        ),
        (
            "0 or more",
            lambda n: n >= 0,
            "weight_decay max_grad_norm warmup_steps neftune_noise_alpha dataloader_num_workers eval_items eval_delay "
            "tolerance center_rewards_coefficient ranked_pairs epsilon epsilon_high",
        ),
        (
            "above 0",
            lambda n: n > 0,
            "learning_rate num_train_epochs adam_epsilon discopop_tau temperature reward_seconds",
        ),
        ("above 0 and 100 at most", lambda n: 0 < n <= 100, "weight"),
        ("above 0 and below 1", lambda n: 0 < n < 1, "share"),
        ("above 0 (below 1: a share of all steps)", lambda n: n > 0, "eval_steps save_steps logging_steps"),
        (
            "0 or more and below 1",
            lambda n: 0 <= n < 1,
            "lora_dropout label_smoothing_factor label_smoothing adam_beta1 adam_beta2",
        ),
        ("between 0 and 1", lambda n: 0 <= n <= 1, "ld_alpha gamma lam"),
        ("1 or more, or -1 for whole epochs", lambda n: n == -1 or n >= 1, "max_steps"),
        (
            "1 or more",
            lambda n: n >= 1,
            "num_generations num_ppo_epochs num_mini_batches rollout_batch_size kl_horizon",
        ),
        ("0 or more", lambda n: n >= 0, "missing_eos_penalty kl_coef vf_coef entropy_coef logged_samples"),
        ("above 0", lambda n: n > 0, "value_head_learning_rate cliprange_value kl_target stop_kl"),
        ("above 0 and 1 at most", lambda n: 0 < n <= 1, "cliprange"),
        ("2 or more, because a token is predicted from those before it", lambda n: n >= 2, "max_length"),
        ("between 0 and 4294967295", lambda n: 0 <= n < 2**32, "seed data_seed"),
    )
    for key in keys.split()
}
"""What a number may be, in words and as a test."""

CHOICES = {
    # Kernels from the Hub (`owner/name`) are code from a repository.
    "attn_implementation": (
        "eager",
        "sdpa",
        "flex_attention",
        "flash_attention_2",
        "flash_attention_3",
        "flash_attention_4",
    ),
    "bnb_4bit_quant_storage": ("uint8", "bfloat16", "float16", "float32"),
    "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    "lora_task_type": ("CAUSAL_LM",),
}
"""The values of keys whose records do not tell them."""

MOST_LISTED = 12
"""Choices that an error lists."""

ALTERNATIVES = (("dataset_name", "mixture"),)
"""Keys of which a run has one: on the command line, one takes the place of the other in the YAML."""

COMMAND_LINE = "command line"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises `UserError` as `parse_yaml` does, or where it is none."""
    values = parse_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"config {path}: must be a mapping of keys to values")
    return values


def parse_yaml(path: Path) -> Any:
    """What a YAML holds. Raises `UserError` with the line where it does not parse or where a key is given again."""
    try:
        text = path.read_text(encoding="utf-8")
        for key, line in _repeated(yaml.compose(text, Loader=yaml.SafeLoader)):
            raise UserError(f"config {path}:{line}: key {key!r} is given twice; leave one of them out")
        return yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"config {path}: not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"config {place}: not YAML ({getattr(error, 'problem', None) or error})") from None


def _repeated(root: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """The keys that a mapping, or one within it, gives again, with their lines: PyYAML keeps the last in silence."""
    open_nodes, visited = [root], set()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in visited or not isinstance(node, yaml.CollectionNode):
            continue
        visited.add(id(node))  # an alias may lead back to it
        if isinstance(node, yaml.SequenceNode):
            open_nodes += node.value
            continue
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key.value, key.start_mark.line + 1
                seen.add(key.value)
            open_nodes.append(value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value can stand for a field of type `hint`; text is accepted where it reads as a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or origin is typing.Literal:
        return hint is Any or value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and (not arguments or all(_fits(v, arguments[0]) for v in value))
    if origin is dict or hint is dict:
        return isinstance(value, dict)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        if isinstance(value, str):
            try:
                float(value)  # YAML reads 5e-4 as text
            except ValueError:
                return False
            return True
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(hint, type):
        # An enumeration is written as the text of one of its members.
        return isinstance(value, hint) or (isinstance(value, str) and hint not in (str, type(None)))
    return True


def _choices(field: dataclasses.Field[Any], hint: Any) -> list[str]:
    """The texts that a field takes, empty where it takes any."""
    if field.name == "report_to":
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        return ["none", "all", *INTEGRATION_TO_CALLBACK]
    if named := CHOICES.get(field.name) or field.metadata.get("choices"):
        return [str(choice) for choice in named]
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return [str(member.value) for member in kind]
    return []


def _nearest_choice(value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, bool):
        word = {True: "yes", False: "no"}[value]
        return f" YAML reads {word} as {value}: write '{word}' in quotes." if word in choices else ""
    if value is None:
        return ""
    longer = [choice for choice in choices if choice.startswith(str(value))]
    near = longer or difflib.get_close_matches(str(value), choices, n=1, cutoff=0.3)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_types(
    values: dict[str, Any],
    record: type,
    where: str,
    ranges: Mapping[str, tuple[str, Callable[[float], bool]]] = RANGES,
) -> None:
    """Raise `UserError` for the first of `values` that is not of the type, choices or range of its field in `record`.

    Args:
        values: by key; keys of other records are left alone.
        record: a dataclass.
        where: the file or the command line, for the message.
        ranges: by key; none where the keys are not this project's.
    """
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        if field.name not in values:
            continue
        value, hint = values[field.name], hints[field.name]
        choices = _choices(field, hint)
        if choices and (value is not None or not _fits(value, hint)):
            for item in value if isinstance(value, list) and _fits(value, hint) else [value]:
                if item not in choices:
                    known = f"one of {', '.join(choices)}" if len(choices) <= MOST_LISTED else "a known name"
                    raise UserError(
                        f"{where}: key {field.name!r} must be {known}, not {item!r}.{_nearest_choice(item, choices)}"
                    )
        elif not _fits(value, hint):
            wanted = getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
            raise UserError(f"{where}: key {field.name!r} must be {wanted.replace('typing.', '')}, not {value!r}")
        if field.name in ranges and value is not None and not isinstance(value, (list, dict)):
            wording, fits = ranges[field.name]
            if not (math.isfinite(float(value)) and fits(float(value))):
                raise UserError(f"{where}: key {field.name!r} must be {wording}, not {value!r}")


def _mapping(text: str) -> dict[str, Any]:
    """A mapping as one argument of the command line."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no YAML mapping, like '{{key: value}}'")
    return value


def _join_repeats(argv: Sequence[str], lists: set[str]) -> list[str]:
    """Let a list flag be repeated: `--a x --b --a y` becomes `--b --a x y` (argparse keeps only the last otherwise)."""
    joined: list[str] = []
    values: dict[str, list[str]] = {}
    current: list[str] = joined
    for argument in argv:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            current = values.setdefault(name, []) if name in lists else joined
            if name not in lists:
                joined.append(argument)
            elif equals:
                current.append(value)
        else:
            current.append(argument)
    return joined + [item for name, given in values.items() for item in (name, *given)]


def _usage(docstring: str, own: Sequence[type], others: Sequence[type]) -> str:
    """What `--help` prints: the recipe's docstring and its own keys."""
    lines = [docstring.strip(), "", "Keys of this recipe, as --key value or in the YAML:"]
    for record in own:
        for field in dataclasses.fields(record):
            default = "" if field.default in (None, dataclasses.MISSING) else f" [default: {field.default}]"
            lines.append(f"  --{field.name:<22} {field.metadata.get('help', '')}{default}")
    if others:
        names = ", ".join(record.__name__ for record in others)
        lines += ["", f"Every key of TRL's {names} works too; the YAML of the recipe shows the ones that matter."]
    return "\n".join(lines)


def wants_help(argv: Sequence[str] | None = None) -> bool:
    """Whether the command line asks for help, so that a recipe can answer before it imports anything heavy."""
    return bool({"-h", "--help"} & set(sys.argv[1:] if argv is None else argv))


def print_help(docstring: str, own: Sequence[type], others: Sequence[type] = ()) -> None:
    """Print a recipe's help."""
    print(_usage(docstring, own, others))


def _without_config(argv: Sequence[str] | None, default_config: Path | None) -> tuple[list[str], Path | None]:
    """The command line without `--config`, and the YAML that it names, else the default one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config":
            if not equals and place + 1 == len(arguments):
                raise UserError("command line: --config needs a YAML file")
            config = Path(value if equals else arguments[place + 1])
            del arguments[place : place + (1 if equals else 2)]
            return arguments, config
    return arguments, default_config


def peek(key: str, default_config: Path | None, argv: Sequence[str] | None = None) -> Any:
    """The value of one key, by which the records are chosen that the whole config is then parsed into.

    Returns:
        What `--key` says, else the YAML; null where neither does.
    """
    arguments, config = _without_config(argv, default_config)
    value = read_yaml(config).get(key) if config else None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, text = argument.partition("=")
        if name == f"--{key}":
            value = text if equals else following
    return value


def parse(
    records: Sequence[type], default_config: Path | None, argv: Sequence[str] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`parse_with_origins` without the origins."""
    return parse_with_origins(records, default_config, argv)[:2]


def parse_with_origins(
    records: Sequence[type], default_config: Path | None, argv: Sequence[str] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, str]]:
    """Parse `--config` (else `default_config`) and the command line into instances of the dataclasses `records`.

    Returns:
        The instances, the values that were given (YAML and command line, without defaults), and for each of these where
        it was given: the name of the YAML or `COMMAND_LINE`.

    Raises:
        UserError: an unknown key or flag (with the nearest known one), a value of the wrong type or outside its
            choices or range, a forbidden key, or keys that exclude each other.
    """
    from trl import TrlParser

    from instructrec.combinations import check_combinations

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            raise UserError(f"command line: {message}")

    types_: Any = list(records)
    parser = Parser(types_, allow_abbrev=False, add_help=False)
    actions = {action.dest: action for action in parser._actions}
    for action in actions.values():
        action.choices = None  # `check_types` names the nearest one
        if typing.get_origin(action.type) is dict:
            action.type = _mapping
    arguments, config = _without_config(argv, default_config)
    values = read_yaml(config) if config else {}
    if "env" in values:
        raise UserError(f"config {config}: key 'env' is not read; set environment variables in the shell")
    for key in values:
        if key in RENAMED:
            raise UserError(f"config {config}: key {key!r} is called {RENAMED[key]!r} here")
        if key not in actions:
            raise UserError(f"config {config}: unknown key {key!r}.{nearest(str(key), actions)}")
        if actions[key].nargs == "+" and isinstance(values[key], str):
            values[key] = [values[key]]  # as on the command line
    for record in records:
        check_types(values, record, f"config {config}")
    # Of every action: a boolean that is true by default has two for one key, `--key` and `--no_key`.
    flags = {flag: action.dest for action in parser._actions for flag in action.option_strings}
    given = dict(values)
    origins = dict.fromkeys(values, config.name if config else "")
    for argument in arguments:
        name = argument.partition("=")[0]
        if argument.startswith("--"):
            if (renamed := RENAMED.get(name[2:].replace("-", "_"))) is not None:
                raise UserError(f"command line: flag {name!r} is called '--{renamed}' here")
            if name not in flags:
                raise UserError(f"command line: unknown flag {name!r}.{nearest(name, flags)}")
            given[flags[name]] = "from the command line"
            origins[flags[name]] = COMMAND_LINE
    for pair in ALTERNATIVES:
        if len(chosen := [key for key in pair if origins.get(key) == COMMAND_LINE]) == 1:
            for key in set(pair) - set(chosen):
                for where in (values, given, origins):
                    where.pop(key, None)
    for key, reason in FORBIDDEN.items():
        if given.get(key) not in (None, False):
            raise UserError(f"{key}: {reason}")
    lists = {f for a in actions.values() if a.nargs in ("+", "*") for f in a.option_strings}
    parser.set_defaults_with_config(**values)
    arguments = _join_repeats(arguments, lists)
    typed = vars(parser.parse_known_args(arguments)[0])
    flagged = {key: typed[key] for key, origin in origins.items() if origin == COMMAND_LINE}
    for record in records:
        check_types(flagged, record, "command line")
    check_combinations(typed, origins)
    try:
        parsed = parser.parse_args_into_dataclasses(args=arguments)
    except Exception as error:  # three libraries check these records, each with its own kinds of error
        message = " ".join(str(error).split())
        named = next((f"key {key!r}: " for key in given if key in message), "")
        raise UserError(f"config {config or 'command line'}: {named}{message}") from None
    resolved = {
        field.name: getattr(instance, field.name)
        for instance, record in zip(parsed, records, strict=True)
        for field in dataclasses.fields(record)
        if field.name in given
    }
    return tuple(parsed), resolved, origins
