"""Going on from an adapter: what it must be, and what it decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructrec.chat_templates import renders_alike
from instructrec.config import COMMAND_LINE
from instructrec.core.errors import UserError
from instructrec.core.schema import Lineage
from instructrec.lineage import read_lineage, weights_sha256
from instructrec.models import adapter_config

WEIGHTS = "adapter_model.safetensors"

INHERITED = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "lora_modules_to_save": "modules_to_save",
    "use_dora": "use_dora",
    "use_rslora": "use_rslora",
}
"""Keys of TRL's `ModelConfig` that say what an adapter is, by their names in its own config. Dropout does not: it is a
matter of the run."""

PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base's weights alone."""


@dataclass
class AdapterArguments:
    """What training starts from."""

    init_adapter: str | None = field(
        default=None, metadata={"help": "Go on training this adapter of the same base (a recipe's output folder)."}
    )


@dataclass(frozen=True)
class Parent:
    """An adapter to go on from.

    Attributes:
        folder: where it is.
        config: its `LoraConfig`, set for training.
        sha256: of its weights.
        lineage: how it came to be; null where its folder does not tell.
    """

    folder: Path
    config: Any
    sha256: dict[str, str]
    lineage: Lineage | None

    def take_over(self, model: Any, origins: dict[str, str]) -> dict[str, Any]:
        """Let the adapter decide the keys that say what an adapter is, whatever the YAML says.

        Args:
            model: TRL's `ModelConfig`, changed in place.
            origins: of the keys that were given; those taken over get `init_adapter`.

        Returns:
            What the run's config has to record: these keys and the hash of the adapter's weights.

        Raises:
            UserError: the command line gives one of them another value.
        """
        taken: dict[str, Any] = {"init_adapter_sha256": self.sha256}
        for key, name in INHERITED.items():
            value = getattr(self.config, name, None)
            value = sorted(value) if isinstance(value, (set, list, tuple)) else value
            if origins.get(key) == COMMAND_LINE and comparable(getattr(model, key)) != comparable(value):
                raise UserError(
                    f"--{key}: the adapter {self.folder} has {value}; leave the flag out to go on from it, "
                    "or --init_adapter to start a new one"
                )
            setattr(model, key, value)
            taken[key], origins[key] = value, "init_adapter"
        self.config.lora_dropout = model.lora_dropout
        return taken

    def check_template(self, tokenizer: Any) -> None:
        """Raise `UserError` if the adapter was trained with another chat template than the tokenizer's."""
        path = self.folder / "chat_template.jinja"
        if path.is_file() and not renders_alike(tokenizer, path.read_text(encoding="utf-8")):
            raise UserError(
                f"init_adapter {self.folder}: was trained with another chat template; give --chat_template_path {path}"
            )

    def load_into(self, model: Any, name: str = "default") -> None:
        """Put the adapter's weights in the place of the new ones of a PEFT model, in the types of these.

        Args:
            model: of a trainer that was made with this adapter's `config`.
            name: `ref` adds a frozen copy, which TRL's trainers with a reference (DPO, GRPO, KTO) then compare with;
                without it their reference is the base alone.

        Raises:
            UserError: they do not fit the adapter's config.
        """
        self._load(model, name)
        if name != "default":  # PEFT has made it in the base's types, and rounded its weights to them
            match_types(model, name, "default")
            self._load(model, name)
            # TRL switches dropout off when a trainer is made, before this copy is there: a noisy reference is none.
            for path, module in model.named_modules():
                if path.endswith(f"lora_dropout.{name}"):
                    module.p = 0.0

    def _load(self, model: Any, name: str) -> None:
        try:
            loaded = model.load_adapter(
                str(self.folder), name, is_trainable=name != "ref", torch_device="cpu", autocast_adapter_dtype=False
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"init_adapter {self.folder}: {WEIGHTS} does not fit its config ({reason})") from None
        check_keys(loaded, f"init_adapter {self.folder}")


def match_types(model: Any, name: str, like: str) -> None:
    """Give the parameters of the adapter `name` of a PEFT model the types that the adapter `like` has."""
    parameters = dict(model.named_parameters())
    for path, parameter in parameters.items():
        if name in (parts := path.split(".")):
            other = ".".join(like if part == name else part for part in parts)
            parameter.data = parameter.data.to(parameters[other].dtype)


@contextmanager
def reference(model: Any) -> Iterator[None]:
    """Within it, a PEFT model is what its policy is compared with: the frozen copy `ref`, else the base alone."""
    from trl.trainer.utils import use_adapter

    with use_adapter(model, "ref" if "ref" in model.peft_config else None):
        yield


def comparable(value: Any) -> Any:
    """A key's value as it can be compared: TRL turns a list of one name into text, PEFT repeats names in others."""
    return sorted({value} if isinstance(value, str) else set(value)) if isinstance(value, (str, list, tuple)) else value


def read_parent(adapter: str | None, name: str, base: Path) -> Parent | None:
    """The adapter that training goes on from, after it was checked against the base model; null for none.

    Args:
        adapter: its folder.
        name: the base model as the user calls it.
        base: the base's folder. Where it holds no weights (a plan), only names are compared.

    Raises:
        UserError: the folder holds no LoRA adapter in safetensors, or one of another base: by the weights' hashes that
            its lineage has, or, without a lineage, by the name in its config.
    """
    if adapter is None:
        return None
    from peft import LoraConfig

    folder, where = Path(adapter), f"init_adapter {adapter}"
    kinds, lineage = adapter_config(folder), read_lineage(folder)
    named = kinds["base_model_name_or_path"]
    there = weights_sha256(base)
    then = (lineage["inputs"].get("model") or {}).get("sha256") if lineage else None
    if then and there:
        if then != there and named in (name, None):
            raise UserError(f"{where}: the weights of {name} are not those that it was trained on; give the same ones")
        if then != there:
            raise UserError(f"{where}: belongs to {named!r}, not {name!r}; give --model_name_or_path {named}")
    elif named not in (name, None):
        raise UserError(f"{where}: belongs to {named!r}, not {name!r}; give --model_name_or_path {named}")
    if kinds.get("peft_type") != "LORA" or kinds.get("task_type") not in ("CAUSAL_LM", None):
        kind = f"{kinds.get('peft_type')} adapter for {kinds.get('task_type')}"
        raise UserError(f"{where}: is a {kind}; only LoRA (and its kinds DoRA and rsLoRA) of a causal LM goes on")
    if kinds.get("init_lora_weights", True) not in PLAIN_STARTS:
        raise UserError(
            f"{where}: init_lora_weights {kinds['init_lora_weights']!r} changes the base's weights too; convert it to "
            "a plain LoRA with PEFT first"
        )
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{where}: no {WEIGHTS} there; pickled weights are not read, save it as safetensors")
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: adapter_config.json is none of PEFT's ({str(error).splitlines()[0]})") from None
    # All weights are loaded later; what another start would compute is not needed.
    config.inference_mode, config.task_type, config.init_lora_weights = False, "CAUSAL_LM", True
    return Parent(folder, config, weights_sha256(folder), lineage)


def check_keys(loaded: Any, where: str) -> None:
    """Raise `UserError` unless every weight of a loaded adapter had a place, and every place a weight.

    Args:
        loaded: what PEFT's `load_adapter` returned.
        where: the adapter, for the message.
    """
    for what, keys in (("lacks", loaded.missing_keys), ("has no place for", loaded.unexpected_keys)):
        if keys:
            raise UserError(f"{where}: the adapter {what} {keys[0]}, so that its weights do not fit its config")
