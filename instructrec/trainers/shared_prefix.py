"""Forward passes over pairs of answers that encode the prompt of a pair once.

A trainer of preferences gives the model every prompt twice, with the chosen and with the rejected answer. With causal
attention all that both begin with is computed to the same numbers, and of mined pairs that is nearly everything. Here a
pair is one sequence

    prompt  rest of the chosen answer  rest of the rejected answer

in which the rejected answer stands at the positions that it would have had behind the prompt, and sees the prompt and
itself (Wang & Hegde, 2024, https://arxiv.org/abs/2410.20305). What comes out is what two sequences would have given.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A batch of pairs, with what they share laid out once.

    Attributes:
        ids, positions: (pairs, length); `seen`: (pairs, 1, length, length), true where a token (third axis) sees one.
        places: (2 · pairs, tokens), where in `ids`, flattened, each token of the batch is found.
    """

    ids: Tensor
    positions: Tensor
    seen: Tensor
    places: Tensor


def pack(ids: Tensor, mask: Tensor) -> Packed:
    """Lay out a batch of pairs.

    Args:
        ids: (2 · pairs, tokens), right-padded: all first ones, then all second ones.
        mask: of the same shape, 1 at tokens and 0 at padding.
    """
    first, second = ids.chunk(2)
    own, other = mask.chunk(2)
    ends, more = own.sum(1, keepdim=True), other.sum(1, keepdim=True)
    shared = ((first == second) & own.bool() & other.bool()).long().cumprod(1).sum(1, keepdim=True)
    place = torch.arange(int((ends + more - shared).max()), device=ids.device)[None]
    positions = torch.where(place < ends, place, place - ends + shared)
    width = ids.shape[1]
    inside = positions.clamp(max=width - 1)  # of what pads it does not matter
    laid = torch.where(place < ends, first.gather(1, inside), second.gather(1, inside))
    query, key = place[:, :, None], place[:, None]
    behind = query < ends[:, :, None]
    seen = (key <= query) & (behind | (key < shared[:, :, None]) | (key >= ends[:, :, None]))
    column = torch.arange(width, device=ids.device)[None]
    columns = torch.cat([column.expand_as(first), torch.where(column < shared, column, column - shared + ends)])
    rows = torch.arange(len(first), device=ids.device).repeat(2)[:, None]
    places = rows * place.shape[1] + columns.clamp(max=place.shape[1] - 1)
    return Packed(laid, positions, seen[:, None], places)


def can_share(model: Any) -> bool:
    """Whether a model computes the same from packed pairs.

    So it is where positions are those that it is told (rotary ones), every layer has full attention, and its kernel
    takes a mask of any form (SDPA).
    """
    config, decoder = model.config, _decoder(model)
    rotary = (
        getattr(config, "rope_parameters", None) and "position_ids" in inspect.signature(decoder.forward).parameters
    )
    layers = getattr(config, "layer_types", None) or [
        "sliding" if getattr(config, "sliding_window", None) else "full_attention"
    ]
    full = set(layers) == {"full_attention"} and config.get_text_config() is config
    return bool(rotary and full and config._attn_implementation == "sdpa")


def _decoder(model: Any) -> Any:
    """What is below a model's head, which is inside of PEFT's wrapper if there is one."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


@contextmanager
def shared_prefixes(model: Any) -> Iterator[None]:
    """Within, forward passes without cache over right-padded batches of pairs encode what the two of a pair share once.

    Args:
        model: a model that `can_share`.
    """
    decoder = _decoder(model)
    names = [*inspect.signature(decoder.forward).parameters]
    packed: list[Packed] = []

    def lay_out(_: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = dict(zip(names, inputs, strict=False)) | named
        packed.append(pack(named["input_ids"], named["attention_mask"]))
        found = {"input_ids": packed[-1].ids, "position_ids": packed[-1].positions, "attention_mask": packed[-1].seen}
        return (), named | found

    def take_apart(_: Any, inputs: Any, output: Any) -> Any:
        places, hidden = packed.pop().places, output.last_hidden_state
        flat = hidden.flatten(0, 1).index_select(0, places.flatten())
        output.last_hidden_state = flat.view(*places.shape, hidden.shape[-1])
        return output

    handles = [
        decoder.register_forward_pre_hook(lay_out, with_kwargs=True),
        decoder.register_forward_hook(take_apart),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sharing(kind: type) -> type:
    """TRL's `DPOTrainer` or `RewardTrainer`, that encodes what both answers of a pair begin with once where it can."""

    class Sharing(kind):
        def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            with shared_prefixes(self.model) if can_share(self.model) else nullcontext():
                return super().compute_loss(model, *args, **kwargs)

    Sharing.__name__ = Sharing.__qualname__ = kind.__name__
    return Sharing
