"""Chat templates that mark what the assistant writes with `{% generation %}`, for models whose own do not.

A mark changes nothing of what is rendered. It tells which tokens are the assistant's, so that `assistant_only_loss`
works, and it is saved with the adapter for whoever trains on from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from instructrec.core.errors import UserError

_AT_ONCE = "{%- set enable_thinking = false %}"

_USER, _ASSISTANT = {"role": "user", "content": "Ask?"}, {"role": "assistant", "content": "Say."}
_SYSTEM = {"role": "system", "content": "Be."}
_PROBES = (
    [_USER],
    [_USER, _ASSISTANT],
    [_USER, _ASSISTANT, _USER],
    [_SYSTEM, _USER],
    [_SYSTEM, _USER, _ASSISTANT, _USER, _ASSISTANT],
)


def _rendered(tokenizer: Any, template: str) -> list[str | None]:
    """What a template makes of a few conversations; null where it refuses one (some know no system message)."""
    texts: list[str | None] = []
    for messages in _PROBES:
        asks = messages[-1] is _USER
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asks, chat_template=template
            )
        except TemplateSyntaxError:
            raise
        except TemplateError:
            text = None
        texts.append(text)
    return texts


def answer_at_once(tokenizer: Any) -> None:
    """Let a chat template that can ask for thoughts before an answer (Qwen3, SmolLM3) ask for none.

    Mined answers have none. In the thinking mode, which is these templates' default, a model would be tuned to close an
    empty thought first, while the evaluation asks for the likelihood of the answer itself in that place.
    """
    if "enable_thinking" in tokenizer.chat_template and not tokenizer.chat_template.startswith(_AT_ONCE):
        tokenizer.chat_template = _AT_ONCE + tokenizer.chat_template


def renders_alike(tokenizer: Any, template: str) -> bool:
    """Whether a template renders conversations as the tokenizer's own does, marks aside."""
    try:
        return _rendered(tokenizer, template) == _rendered(tokenizer, tokenizer.get_chat_template())
    except TemplateSyntaxError:
        return False


def choose_template(tokenizer: Any, path: str | None = None, marked: bool = False) -> None:
    """Give a tokenizer the template at `path`, if any, and marks: those of a template here that renders the same.

    Args:
        tokenizer: changed in place.
        path: a Jinja file (`chat_template_path`).
        marked: whether the loss needs marks (`assistant_only_loss`); TRL's templates are then tried as well.

    Raises:
        UserError: the file cannot be used, no marks are to be had, or they leave out the token that ends an answer.
    """
    from trl.chat_template_utils import (
        get_training_chat_template,
        has_generation_markers,
        is_chat_template_stop_token_trained,
    )

    if path is not None:
        tokenizer.chat_template = _read(tokenizer, Path(path))
    if not has_generation_markers(tokenizer.chat_template):
        own = _rendered(tokenizer, tokenizer.get_chat_template())
        for shipped in sorted(Path(__file__).parent.glob("*.jinja")):
            template = shipped.read_text(encoding="utf-8")
            if _rendered(tokenizer, template) == own:
                tokenizer.chat_template = template
                break
    if not marked:
        return
    try:
        at_once = tokenizer.chat_template.startswith(_AT_ONCE)
        tokenizer.chat_template = tokenizer.chat_template.removeprefix(_AT_ONCE)  # TRL knows templates by their text
        tokenizer.chat_template = get_training_chat_template(tokenizer) or tokenizer.chat_template
        if at_once:
            answer_at_once(tokenizer)
    except ValueError:
        raise UserError(
            "assistant_only_loss: the model's chat template has no generation marks; put {% generation %} and "
            "{% endgeneration %} around the assistant's message in a copy of it and give that as --chat_template_path, "
            "or leave assistant_only_loss out: completions alone are supervised without it too"
        ) from None
    if not is_chat_template_stop_token_trained(tokenizer):
        raise UserError(
            "assistant_only_loss: the generation marks of the chat template leave out the token that ends an answer, "
            "so that the model would never learn to stop; write it before {% endgeneration %}"
        )


def _read(tokenizer: Any, path: Path) -> str:
    if path.suffix not in (".jinja", ".j2"):  # which TRL would take for a tokenizer to copy, new tokens included
        raise UserError(f"chat_template_path: must be a file that ends in .jinja or .j2, not {str(path)!r}")
    try:
        template = path.read_text(encoding="utf-8")
        _rendered(tokenizer, template)
    except OSError as error:
        raise UserError(f"chat_template_path: {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"chat_template_path: {path}: not UTF-8 at byte {error.start}") from None
    except TemplateSyntaxError as error:
        raise UserError(f"chat_template_path: {path}:{error.lineno}: {error.message}") from None
    return template
