"""Strict configuration: YAML < command line, every key known, every value of its type, and one line when it is not."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from instructrec.core.errors import UserError, nearest

FORBIDDEN = {
    "hub_token": "a token is never read from a file or flag; log in with `hf auth login` or set HF_TOKEN",
    "push_to_hub": "it would upload training_args.bin and checkpoints too; upload the finished folder with `hf upload`",
    "trust_remote_code": "code from a model repository is never run here",
}
"""Keys that TRL knows and this project refuses, with the reason."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises `UserError` with the line where it does not parse."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"config {path}: not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"config {place}: not YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(values, dict):
        raise UserError(f"config {path}: must be a mapping of keys to values")
    return values


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


def check_types(values: dict[str, Any], record: type, where: str) -> None:
    """Raise `UserError` for the first of `values` that does not fit its field in the dataclass `record`."""
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        if field.name not in values:
            continue
        value, hint = values[field.name], hints[field.name]
        if not _fits(value, hint):
            wanted = getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
            raise UserError(f"{where}: key {field.name!r} must be {wanted.replace('typing.', '')}, not {value!r}")
        choices = field.metadata.get("choices")
        if choices and value is not None and value not in choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1, cutoff=0.3)
            hint_text = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(str(c) for c in choices)
            raise UserError(f"{where}: key {field.name!r} must be one of {known}, not {value!r}.{hint_text}")


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


def parse(
    records: Sequence[type], default_config: Path | None, argv: Sequence[str] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Parse `--config` (else `default_config`) and the command line into instances of the dataclasses `records`.

    Returns:
        The instances, and the values that were given (YAML and command line, without defaults).

    Raises:
        UserError: an unknown key or flag (with the nearest known one), a value of the wrong type or outside its
            choices, a forbidden key, or a combination that TRL refuses.
    """
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            raise UserError(f"command line: {message}")

    types_: Any = list(records)
    parser = Parser(types_, allow_abbrev=False, add_help=False)
    actions = {action.dest: action for action in parser._actions}
    arguments = list(sys.argv[1:] if argv is None else argv)
    config = default_config
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config":
            if not equals and place + 1 == len(arguments):
                raise UserError("command line: --config needs a YAML file")
            config = Path(value if equals else arguments[place + 1])
            del arguments[place : place + (1 if equals else 2)]
            break
    values = read_yaml(config) if config else {}
    if "env" in values:
        raise UserError(f"config {config}: key 'env' is not read; set environment variables in the shell")
    for key in values:
        if key not in actions:
            raise UserError(f"config {config}: unknown key {key!r}.{nearest(str(key), actions)}")
    for record in records:
        check_types(values, record, f"config {config}")
    flags = {flag: action.dest for action in actions.values() for flag in action.option_strings}
    given = dict(values)
    for argument in arguments:
        name = argument.partition("=")[0]
        if argument.startswith("--"):
            if name not in flags:
                raise UserError(f"command line: unknown flag {name!r}.{nearest(name, flags)}")
            given[flags[name]] = "from the command line"
    for key, reason in FORBIDDEN.items():
        if given.get(key) not in (None, False):
            raise UserError(f"{key}: {reason}")
    lists = {f for a in actions.values() if a.nargs in ("+", "*") for f in a.option_strings}
    parser.set_defaults_with_config(**values)
    try:
        parsed = parser.parse_args_into_dataclasses(args=_join_repeats(arguments, lists))
    except (ValueError, TypeError, argparse.ArgumentError, ImportError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"config {config or 'command line'}: {message}") from None
    resolved = {
        field.name: getattr(instance, field.name)
        for instance, record in zip(parsed, records, strict=True)
        for field in dataclasses.fields(record)
        if field.name in given
    }
    return tuple(parsed), resolved
