"""Several rewards as one: R = Σ wᵢrᵢ / Σ wᵢ over those that apply to a completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instructrec.rewards.component import Component


@dataclass(frozen=True)
class Rewards:
    """Weighted rewards, in the order of their YAML.

    Give the whole to TRL as its only reward function, and every component is logged as `rewards/NAME`. The components
    may be given instead, with `reward_weights=rewards.weights`, as reward functions of their own; TRL then counts a
    null as 0, where R leaves its weight out.
    """

    components: tuple[Component, ...]

    @property
    def __name__(self) -> str:
        """What TRL logs R under."""
        return "reward"

    @property
    def weights(self) -> list[float]:
        """Of the components, adding up to 1."""
        total = sum(component.weight for component in self.components)
        return [component.weight / total for component in self.components]

    def each(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> dict[str, list[float | None]]:
        """Every component's rewards of a batch, by its name. Raises `UserError` as `Component` does."""
        return {component.name: component(prompts, completions, **columns) for component in self.components}

    def combine(self, rewards: Mapping[str, float | None]) -> float | None:
        """R of one completion's rewards by name; null where none applies."""
        pairs = [(c.weight, value) for c in self.components if (value := rewards[c.name]) is not None]
        return sum(weight * value for weight, value in pairs) / sum(weight for weight, _ in pairs) if pairs else None

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """R of every completion of a batch, logged by component where a trainer passes `log_metric`."""
        found = self.each(prompts, completions, **columns)
        if log := columns.get("log_metric"):
            for name, values in found.items():
                for value in values:
                    if value is not None:
                        log(f"rewards/{name}", value)
        rows = (dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True))
        return [self.combine(row) for row in rows]
