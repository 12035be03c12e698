"""Models that write instructions for `instructrec build --synthesize`: one on this machine, or behind an HTTP server.

The builder calls `write` and `logprobs` (see `data_builders.synthesis.Synthesizer`). A server's chat answers do not
give the likelihood of a given text, so that what a server wrote is judged by the embedded model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.request
from collections.abc import Sequence
from functools import cached_property
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint
from instructrec.evaluation.suites import Item
from instructrec.models import EMBEDDED, load_model, load_tokenizer, resolve_model

NEW_TOKENS = 40
"""Tokens of what is written at most."""
BATCH = 16
TIMEOUT = 120.0
"""Seconds in which a server must answer."""

_ENDPOINT = re.compile(r"(https?://[^/#@?\s]+[^#@?\s]*)#(\S+)")


def load_writer(name: str) -> LocalWriter | Endpoint:
    """The writer of a name: the embedded model, a Hub name, a folder, or `http(s)://host:port/v1#model`.

    A local model's weights are loaded when it is first asked.

    Raises:
        UserError: no such model, or not an address of this form.
    """
    if not re.match(r"https?:", name):
        return LocalWriter(name)
    if not (match := _ENDPOINT.fullmatch(name)):
        raise UserError(
            "--synthesize: a server is given as http(s)://host:port/v1#model-name, without a user, key or query in it; "
            "a key is read from OPENAI_API_KEY"
        )
    return Endpoint(match[1].rstrip("/"), match[2], LocalWriter(EMBEDDED))


class LocalWriter:
    """A causal LM with a chat template; it writes greedily, and judges too.

    Args:
        name: the embedded model, a Hub name or a folder.
    """

    def __init__(self, name: str) -> None:
        self.folder = resolve_model(name)
        self.identity: dict[str, Any] = {
            "model": self.folder.name if Path(name).is_dir() else name,
            "weights": fingerprint(self.folder, "*.safetensors"),
            "settings": fingerprint(self.folder, "*.j*"),  # tokenizer, chat template and config
            "versions": {package: version(package) for package in ("torch", "transformers")},
        }

    @cached_property
    def _scorer(self) -> Any:
        from instructrec.runtime import quiet, use_all_cores

        quiet()
        import torch

        from instructrec.evaluation.scoring import Scorer

        use_all_cores()
        model = load_model(self.folder, "bfloat16" if torch.cuda.is_available() else "float32")
        return Scorer(model.eval(), load_tokenizer(self.folder), BATCH)

    def write(self, requests: Sequence[str]) -> list[str]:
        """The greedy answers, up to their last whole line where they do not end in `NEW_TOKENS`."""
        answers = self._scorer.score([_item(request) for request in requests], [NEW_TOKENS] * len(requests))
        return [_whole(answer.output, answer.stopped) for answer in answers]

    def logprobs(self, questions: Sequence[tuple[str, str]]) -> list[float]:
        """For each (prompt, answer) the log-probability of the answer: natural, summed over its tokens."""
        answers = self._scorer.score([_item(*question) for question in questions], [0] * len(questions))
        return [answer.gold_logprob for answer in answers]


def _item(prompt: str, *targets: str) -> Item:
    return Item("synthesis", "synthesis", ({"role": "user", "content": prompt},), targets, None)


def _whole(text: str, ended: bool) -> str:
    return text if ended else text.rpartition("\n")[0]


class Endpoint:
    """A server that speaks OpenAI's chat completions; `judge` gives the likelihoods.

    The key is read from the environment for each request; it is in no error, log or file, and follows no redirection.
    """

    def __init__(self, address: str, model: str, judge: LocalWriter) -> None:
        self.address, self.model, self.judge = address, model, judge
        self.identity: dict[str, Any] = {"model": model, "judge": judge.identity}
        self.logprobs = judge.logprobs

    def write(self, requests: Sequence[str]) -> list[str]:
        """The answers, one request after the other, at temperature 0 and with a seed that depends on the request."""
        return [self._write(request) for request in requests]

    def _write(self, request: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": request}],
            "temperature": 0,
            "seed": int(hashlib.sha256(request.encode()).hexdigest()[:7], 16),
            "max_tokens": NEW_TOKENS,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY", "").strip():
            headers["Authorization"] = f"Bearer {key}"
        url = f"{self.address}/chat/completions"
        call = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.build_opener(_NoRedirection).open(call, timeout=TIMEOUT) as reply:
                choice = json.load(reply)["choices"][0]
            return _whole(choice["message"]["content"] or "", choice["finish_reason"] != "length")
        except HTTPError as error:
            hint = "check OPENAI_API_KEY" if error.code in (401, 403) else "check the address, the model and the server"
            raise self._failed(f"answered {error.code} {error.reason}; {hint}") from None
        except TimeoutError:
            raise self._failed(f"gave no answer in {TIMEOUT:g} s") from None
        except (URLError, HTTPException, OSError) as error:
            raise self._failed(f"cannot be reached ({getattr(error, 'reason', error)})") from None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._failed("did not answer as chat completions do") from None

    def _failed(self, what: str) -> UserError:
        return UserError(
            f"--synthesize {self.address}#{self.model}: {what}; what it has written is kept, run the same command again"
        )


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirection is an error: the key is for the named server alone."""
