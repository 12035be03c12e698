"""A rewards YAML: a list of `{name, weight, args}`; a name is built in or leads to a function of a user's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
import sys
import typing
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field, make_dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from instructrec.config import RANGES, check_types, parse_yaml
from instructrec.core.errors import UserError, nearest
from instructrec.core.files import one_line
from instructrec.rewards.builtin import BUILT_IN
from instructrec.rewards.combined import Rewards
from instructrec.rewards.component import SECONDS, Component, RewardFunction

_KEYS = ("name", "weight", "args")
_PROMPTS = ("prompts", "completions")


def load_rewards(path: Path, seconds: float = SECONDS) -> Rewards:
    """The rewards that a YAML names, with their arguments; no model is loaded yet.

    Args:
        seconds: for a call of a reward at most.

    Raises:
        UserError: it is no such list, or a name, weight or argument is wrong; the message names the entry.
    """
    entries = parse_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: must be a list of rewards, as in `- {{name: fuzzy, weight: 1}}`")
    components: list[Component] = []
    times: Counter[str] = Counter()
    for number, entry in enumerate(entries, start=1):
        name, weight, args = _entry(entry, f"{path}: reward {number}")
        where = f"{path}: reward {name!r}"
        function = _resolve(name, where)
        label = re.split("[.:]", name)[-1]
        times[label] += 1
        label += f"_{times[label]}" if times[label] > 1 else ""
        components.append(Component(label, weight, _with_arguments(function, args, where), seconds))
    return Rewards(tuple(components))


def _entry(entry: Any, where: str) -> tuple[str, float, dict[str, Any]]:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: must be a mapping with {', '.join(_KEYS)}")
    for key in entry:
        if key not in _KEYS:
            raise UserError(f"{where}: unknown key {key!r}.{nearest(str(key), _KEYS)}")
    name, weight, args = entry.get("name"), entry.get("weight", 1), entry.get("args") or {}
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: needs a name; built in are {', '.join(BUILT_IN)}")
    try:
        value = math.nan if isinstance(weight, bool) else float(weight)  # YAML reads 1e-3 as text
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{where} ({name}): 'weight' must be a finite number above 0, not {weight!r}")
    if not isinstance(args, dict):
        raise UserError(f"{where} ({name}): 'args' must be a mapping of arguments to values")
    return name, value, args


def _resolve(name: str, where: str) -> Callable[..., Any]:
    """The function or class of a name: built in, `module.function`, or `path/to/file.py:function`."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    file, colon, attribute = name.rpartition(":")
    if colon:
        module = _imported(lambda: _from_file(Path(file)), where)
    elif "." in name:
        place, _, attribute = name.rpartition(".")
        module = _imported(lambda: importlib.import_module(place), where)
    else:
        raise UserError(
            f"{where}: unknown.{nearest(name, BUILT_IN)} Built in are {', '.join(BUILT_IN)}; one of your own is"
            " module.function or path/to/file.py:function"
        )
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key in dir(module) if not key.startswith("_")]  # some modules load what is in them when asked
        raise UserError(f"{where}: there is no function {attribute!r}.{nearest(attribute, known)}")
    called = function.__call__ if inspect.isclass(function) else function
    if inspect.iscoroutinefunction(called):
        raise UserError(f"{where}: is a coroutine; a reward must be a plain function")
    return function


def _imported(load: Callable[[], ModuleType], where: str) -> ModuleType:
    try:
        return load()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (Exception, SystemExit) as error:  # of the module's own code, too
        raise UserError(f"{where}: cannot be imported ({type(error).__name__}: {one_line(str(error))})") from error


def _from_file(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"no Python file {path}")
    name = f"instructrec_rewards_{path.stem}"  # a bare stem could take the place of a module of that name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _with_arguments(function: Callable[..., Any], args: dict[str, Any], where: str) -> RewardFunction:
    """The function with its arguments, or the instance that the class makes of them.

    Raises:
        UserError: an argument is unknown, missing, or not of the type that it is annotated with; or the class fails.
    """
    is_class = inspect.isclass(function)
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise UserError(f"{where}: does not tell its parameters; wrap it in a function that has them") from None
    parameters = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY or (is_class and parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
        if name not in _PROMPTS
    }
    for name in args:
        if name not in parameters:
            takes = f"it takes {', '.join(parameters)}" if parameters else "it takes none"
            raise UserError(f"{where}: unknown argument {name!r}; {takes}.{nearest(str(name), parameters)}")
    for name, parameter in parameters.items():
        if name not in args and parameter.default is parameter.empty:
            raise UserError(f"{where}: needs the argument {name!r}")
    hints = _hints(function.__init__ if is_class else function)
    given = [(name, hints.get(name, Any), field(default=None)) for name in args]
    # Of a user's own, a `seed` or a `weight` may be anything.
    ranges = RANGES if function in BUILT_IN.values() else {}
    check_types(args, make_dataclass("Arguments", given), f"{where}, args", ranges)
    args = {name: _as_number(value, hints.get(name)) for name, value in args.items()}
    if not is_class:
        return partial(function, **args) if args else function
    try:
        made = function(**args)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (Exception, SystemExit) as error:  # of the class's own code, too
        raise UserError(f"{where}: cannot be made ({type(error).__name__}: {one_line(str(error))})") from error
    if not callable(made):
        raise UserError(f"{where}: its instances cannot be called; give the class a method __call__")
    return made


def _as_number(value: Any, hint: Any) -> Any:
    """YAML reads 5e-1 as text: the number, where it cannot be meant as text."""
    kinds = typing.get_args(hint) or (hint,)
    if isinstance(value, list):
        return [_as_number(item, hint) for item in value]
    if isinstance(value, str) and float in kinds and str not in kinds:
        with suppress(ValueError):  # of another of its kinds
            return float(value)
    return value


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # of annotations that name what is imported for type checkers only
        return {}
