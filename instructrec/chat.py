"""A chat in the terminal: streaming, greedy, with one model or several adapters of one base.

Several adapters answer one after the other, each below a line with its name and each with its own history: two columns
would halve the lines, could not be scrolled while they stream, and would mix when copied.
"""

from __future__ import annotations

import io
import random
import re
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2 import TemplateError
from rich.console import Console
from rich.text import Text

from instructrec.core.errors import UserError, nearest
from instructrec.models import (
    EMBEDDED,
    adapter_config,
    load_model,
    load_tokenizer,
    resolve_model,
    stop_tokens,
    with_adapter,
)

_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
"""Characters that could steer the terminal: all control characters but tab and line feed."""

COMMANDS = {
    "/help": "this list",
    "/pick [SPLIT]": "ask a held-out instruction in a new conversation; the gold answer follows the replies",
    "/system [TEXT]": "set the system prompt from here on; without TEXT there is none",
    "/clear": "forget the conversation",
    "/quit": "end, as Ctrl-D does",
}


@dataclass
class Voice:
    """One side that answers.

    Attributes:
        name: the adapter's, or the model's where it has none.
        adapter: what PEFT calls it; null for a model without an adapter.
        tokenizer: with the chat template that the adapter was trained in.
        history: the messages of the conversation, without the chat's system prompt.
    """

    name: str
    adapter: str | None
    tokenizer: Any
    history: list[dict[str, str]] = field(default_factory=list)


class Chat:
    """A conversation with all voices of a model.

    Args:
        model: in evaluation mode, with the voices' adapters.
        voices: who answers, in this order.
        system: the system prompt, or null.
        suites: names that `load_suites` reads, for `/pick`.
        limit: tokens in a reply at most.
    """

    def __init__(
        self, model: Any, voices: Sequence[Voice], system: str | None, suites: Sequence[str], limit: int
    ) -> None:
        self.model, self.voices, self.system, self.limit = model, voices, system, limit
        self.suites = suites
        self.context = getattr(model.config, "max_position_embeddings", None)
        self.console = Console(highlight=False)
        self._deck: dict[str, list[Any]] | None = None
        self._interrupted = False

    def run(self) -> None:
        """Read messages and commands until Ctrl-D or /quit."""
        going = True
        while going:
            try:
                going = self.take(input("\n> ").strip())
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\nCtrl-D or /quit ends")

    def take(self, line: str) -> bool:
        """Do what a line asks. Returns whether the chat goes on."""
        word, _, rest = line.partition(" ")
        if not re.fullmatch(r"/[a-z]+", word):  # a path is a message
            if line:
                self.say([{"role": "user", "content": line}])
        elif word == "/clear":
            self._forget()
        elif word == "/system":
            self.system = rest.strip() or None
        elif word == "/pick":
            self.pick(rest.strip())
        elif word != "/quit":
            known = [command.split()[0] for command in COMMANDS]
            if word != "/help":
                self._note(f"there is no {word}.{nearest(word, known)}")
            width = max(map(len, COMMANDS))
            self._note("\n".join(f"{command:{width}}  {meaning}" for command, meaning in COMMANDS.items()))
        return word != "/quit"

    def say(self, messages: Sequence[dict[str, str]]) -> None:
        """Add messages to every voice's history and let each answer."""
        # No exception, which a second Ctrl-C could raise anywhere, as in the middle of a line on the screen or between
        # a reply and its place in the history: generation looks at a flag after every token.
        previous = signal.signal(signal.SIGINT, self._interrupt)
        try:
            for voice in self.voices:
                if len(self.voices) > 1:
                    self.console.rule(Text(voice.name, style="bold cyan"), align="left")
                if (asked := self._prompt(voice, [*voice.history, *messages])) is not None:
                    conversation, inputs = asked
                    reply = self._reply(voice, inputs)
                    voice.history = [*conversation, {"role": "assistant", "content": reply}]
        finally:
            signal.signal(signal.SIGINT, previous)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True

    def pick(self, split: str) -> None:
        """Ask a held-out item, drawn at random from a suite or from all, and show its gold answer."""
        try:
            deck = self._load_deck()
        except UserError as error:
            return self._note(str(error))
        if not deck:
            return self._note("no instruction set of the adapters is at hand; start the chat with --suite")
        if split and split not in deck:
            return self._note(f"there is no {split!r}, but {', '.join(deck)}.{nearest(split, deck)}")
        name = split or random.choice(list(deck))
        item = random.choice(deck[name])
        self._forget()
        question = "\n\n".join(message["content"] for message in item.messages)
        self._note(f"{name} · {item.category} · {item.id}")
        self._show(question)
        self.say(item.messages)
        self._show(f"gold: {item.targets[0] if item.targets else 'none; the answer is judged by checks'}", "green")

    def _load_deck(self) -> dict[str, list[Any]]:
        """Items with a question by suite; read when first asked for."""
        if self._deck is None:
            from instructrec.evaluation.suites import load_suites

            deck: dict[str, list[Any]] = {}
            for name in self.suites:
                for suite, items in load_suites([name], 0).items():
                    deck.setdefault(suite, []).extend(item for item in items if item.messages)
            self._deck = {suite: items for suite, items in deck.items() if items}
        return self._deck

    def _forget(self) -> None:
        for voice in self.voices:
            voice.history.clear()

    def _note(self, text: str) -> None:
        self._show(text, "dim")

    def _show(self, text: str, style: str = "") -> None:
        self.console.print(Text(text.translate(_CONTROL), style=style), soft_wrap=True)

    def _prompt(self, voice: Voice, conversation: list[dict[str, str]]) -> tuple[list[dict[str, str]], Any] | None:
        """A conversation, without its oldest turns where the context is full, and its tokens; null if it has no place.

        What cannot be asked is told on the screen.
        """
        # A suite's item may have a system message of its own, which stays in front whatever is forgotten.
        given = [message for message in conversation if message["role"] == "system"]
        turns = [message for message in conversation if message["role"] != "system"]
        system = given or ([{"role": "system", "content": self.system}] if self.system else [])
        dropped = 0
        while True:
            try:
                inputs = voice.tokenizer.apply_chat_template(
                    system + turns[dropped:], add_generation_prompt=True, return_tensors="pt", return_dict=True
                )
            except TemplateError as error:
                self._note(f"the chat template refuses this conversation ({error})")
                return None
            if self.context is None or inputs["input_ids"].shape[1] + self.limit <= self.context:
                break
            dropped += 2  # a message and its reply
            if dropped >= len(turns):
                self._note(f"too long: message and reply must fit into {self.context} tokens; see --max-new-tokens")
                return None
        if dropped:
            self._note(f"the context is full: the first {dropped} messages are forgotten")
        return given + turns[dropped:], inputs.to(self.model.device)

    def _reply(self, voice: Voice, inputs: Any) -> str:
        """Stream a reply to the terminal and return it; Ctrl-C ends it where it is."""
        from transformers import StoppingCriteria, TextStreamer

        chat, pieces = self, list[str]()
        self._interrupted = False

        class Interrupted(StoppingCriteria):
            def __call__(self, input_ids: object, scores: object, **_: object) -> bool:
                return chat._interrupted

        class Screen(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                pieces.append(text.translate(_CONTROL))
                print(pieces[-1], end="", flush=True)

        if voice.adapter is not None:
            self.model.set_adapter(voice.adapter)
        started, asked = time.monotonic(), inputs["input_ids"].shape[1]
        output = self.model.generate(
            **inputs,
            max_new_tokens=self.limit,
            do_sample=False,
            eos_token_id=sorted(stop_tokens(self.model, voice.tokenizer)),
            pad_token_id=voice.tokenizer.pad_token_id,
            stopping_criteria=[Interrupted()],
            streamer=Screen(voice.tokenizer, skip_prompt=True, skip_special_tokens=True),
        )
        print(" [stopped]" if self._interrupted else "")
        written = output.shape[1] - asked
        speed = written / max(time.monotonic() - started, 1e-9)
        self._note(f"{asked} tokens asked, {written} written, {speed:.0f} per second")
        return "".join(pieces)


def chat(
    adapters: Sequence[Path], name: str | None, system: str | None, suites: Sequence[str], max_new_tokens: int
) -> None:
    """Load a model with its adapters and talk to it in the terminal.

    Args:
        name: the base model; default: the adapters', else the embedded one.
        suites: what `/pick` draws from; default: the held-out splits of the sets that the adapters were trained on.

    Raises:
        UserError: model or adapter is not there, or the adapters are of different bases.
    """
    configs = [adapter_config(adapter) for adapter in adapters]
    bases = [config["base_model_name_or_path"] for config in configs]
    for adapter, base in zip(adapters, bases, strict=True):
        if name is None and base != bases[0]:
            raise UserError(
                f"adapter {str(adapter)!r} belongs to {base!r} and {str(adapters[0])!r} to {bases[0]!r}; chat with "
                "adapters of one base, or give it as --model_name_or_path"
            )
    revision = configs[0].get("revision") if configs and name in (None, bases[0]) else None
    name = name or next(filter(None, bases), EMBEDDED)
    folder = resolve_model(name, revision)

    from instructrec.runtime import quiet

    quiet()
    from instructrec.evaluation.contamination import held_out_suites

    suites = held_out_suites(adapters or [folder], suites)
    model = load_model(folder, "bfloat16").eval()
    voices = []
    for number, adapter in enumerate(adapters):
        model = with_adapter(model, adapter, f"adapter{number}")
        voices.append(Voice(str(adapter), f"adapter{number}", load_tokenizer(folder, adapter)))
    voices = voices or [Voice(name, None, load_tokenizer(folder))]
    with suppress(ImportError):
        import readline  # noqa: F401  (arrow keys in `input`)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    print(" + ".join([name, *map(str, adapters[:1])]) if len(adapters) < 2 else f"{name} with {len(adapters)} adapters")
    print("Ctrl-C stops a reply, Ctrl-D ends, /help lists the commands")
    Chat(model, voices, system, suites, max_new_tokens).run()
