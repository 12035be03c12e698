"""One repository of a Hub: created, filled and read back, steadily, with every failure in one line.

The Hub client sends a file again when the connection breaks, but a repository's creation and a commit only once, and
waits for an answer for ever; here every step ends and is repeated. A file that has arrived is not sent again, so that
the same command goes on where one was cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, Literal, TypeVar

from instructrec.core.errors import UserError
from instructrec.core.files import sha256_file
from instructrec.outgoing import CARD, Files, on_list

Kind = Literal["model", "dataset"]
T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each repetition of a step that failed for a reason that may pass."""

PATIENCE = 300.0
"""Seconds without a byte after which a connection counts as broken; a large commit is silent for a while."""

TRANSIENT = (408, 429, 500, 502, 503, 504)
"""Such reasons, as HTTP says them; a broken connection is another."""

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token with the right to write"


def check_name(repo: str, flag: str = "--repo", owned: bool = True) -> None:
    """Raise `UserError` that names the flag unless `repo` is a name that the Hub takes.

    Args:
        owned: it must tell an owner, as all new names do.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{flag} {repo!r}: {str(error).split(':')[0].rstrip('.')}; give USER/NAME") from None
    if owned and "/" not in repo:
        raise UserError(f"{flag} {repo!r}: must be USER/NAME")


def check_card(kind: Kind, files: Files, hub: Hub | None) -> None:
    """Raise `UserError` unless the card's metadata pass the Hub client's check and, if there is a Hub, also its own."""
    from huggingface_hub import DatasetCard, ModelCard

    text = files[CARD]
    assert isinstance(text, bytes)

    def check() -> None:
        try:
            card: Any = (ModelCard if kind == "model" else DatasetCard)(text.decode())
            if hub is not None:
                card.validate()
        except ValueError as error:
            mend = "choose another --licence" if kind == "model" else "mend the licence's `hub` in --licences"
            raise UserError(f"the card is refused: {_line(str(error))}; {mend}") from None

    hub.ask(check) if hub else check()


class Hub:
    """A repository, under the token of the environment or of the Hub client's own login.

    Raises:
        UserError: there is no token, or the Hub does not know it, lets it only read, or cannot be reached.
    """

    def __init__(self, repo: str, kind: Kind) -> None:
        from huggingface_hub import HfApi, get_token, set_client_factory
        from huggingface_hub.utils import disable_progress_bars, logging

        set_client_factory(_patient_client)
        disable_progress_bars()
        logging.set_verbosity_error()  # its warnings name places to upload to, which are signed
        self.repo, self.kind = repo, kind
        token = get_token()
        if token is None:
            raise UserError(f"publish: there is no token; {_LOG_IN}")
        if not token.isascii():
            raise UserError(f"publish: the token holds characters that no token has; {_LOG_IN}")
        self.token = token
        self._api = HfApi(token=token, library_name="instructrec")
        who = self.ask(self._api.whoami, waits=WAITS[:2])  # where nobody is there, this is soon told
        if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
            raise UserError(f"publish: the token of {who['name']} may only read; {_LOG_IN}")

    @property
    def address(self) -> str:
        """Where a browser finds the repository."""
        return f"{self._api.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"

    def create(self, private: bool) -> bool:
        """Create the repository if it is not there, and return whether it is private.

        Raises:
            UserError: it is there and public, and was asked to be private; or the name is that of another kind.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        def create() -> bool:
            self._api.create_repo(self.repo, repo_type=self.kind, private=private or None, exist_ok=True)
            try:
                return bool(self._info().private)
            except RepositoryNotFoundError:
                raise UserError(
                    f"--repo {self.repo}: the name is taken (409), but not by a {self.kind} that you may see; choose "
                    "another name"
                ) from None

        is_private = self.ask(create)
        if private and not is_private:
            raise UserError(
                f"--private: {self.repo} exists and is public; make it private in its settings or choose another name"
            )
        return is_private

    def _info(self, revision: str | None = None) -> Any:
        return self._api.repo_info(self.repo, repo_type=self.kind, revision=revision, timeout=PATIENCE)

    def upload(self, files: Files, patterns: tuple[str, ...], message: str, branch: str | None = None) -> str:
        """Commit files and return the commit's id.

        Large files go first, one by one. Files on the list that an earlier publication left there and this one has not
        are deleted; others are let alone.

        Args:
            patterns: the list.
            branch: it is created if it is not there; by default the main one.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        additions = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        place: Any = {"repo_id": self.repo, "repo_type": self.kind, "revision": branch}
        if branch is not None:
            self.ask(lambda: self._api.create_branch(self.repo, repo_type=self.kind, branch=branch, exist_ok=True))
        for addition in additions:
            self.ask(partial(self._api.preupload_lfs_files, additions=[addition], free_memory=False, **place))

        def commit() -> str:
            # Asked before each try: a commit whose answer was lost has deleted them.
            there = [sibling.rfilename for sibling in self._info(branch).siblings]
            stale = [path for path in there if on_list(path, patterns) and path not in files]
            changes: list[Any] = [*additions, *map(CommitOperationDelete, stale)]
            return self._api.create_commit(operations=changes, commit_message=message, **place).oid

        return self.ask(commit)

    def read_back(self, commit: str, files: Files, into: Path) -> None:
        """Download what a commit has of `files` and compare every byte.

        Args:
            into: a new folder.

        Raises:
            UserError: naming the first file that differs.
        """
        self.download(commit, list(files), into)
        for path, content in sorted(files.items()):
            got = into / path
            same = got.is_file() and (
                got.read_bytes() == content
                if isinstance(content, bytes)
                else got.stat().st_size == content.stat().st_size and sha256_file(got) == sha256_file(content)
            )
            if not same:
                raise UserError(
                    f"{self.address}: {path} was downloaded again and differs from what was sent; publish it again"
                )

    def download(self, revision: str | None, paths: list[str], into: Path) -> None:
        """Download files of a revision into a folder, past every cache."""
        from huggingface_hub import snapshot_download

        self.ask(
            lambda: snapshot_download(
                self.repo,
                repo_type=self.kind,
                revision=revision,
                local_dir=into,
                allow_patterns=[escape(path) for path in paths],
                token=self.token,
            )
        )

    def model(self, name: str, revision: str | None) -> Any:
        """What the Hub says of a model and its files. Raises `UserError` where it has none of that name."""
        return self.ask(
            lambda: self._api.model_info(name, revision=revision, files_metadata=True, timeout=PATIENCE),
            about=f"base model {name}",
        )

    def ask(self, call: Callable[[], T], waits: tuple[float, ...] = WAITS, about: str = "") -> T:
        """Call, and again after each wait while the reason may pass. Raises `UserError` for the last failure."""
        for wait in (*waits, None):
            try:
                return call()
            except UserError:
                raise
            except Exception as error:
                cause = _cause(error)
                if isinstance(cause, OSError) and cause.errno:  # of this machine: a full disk, no permission
                    raise cause from None
                if wait is None or not _may_pass(cause):
                    raise explained(cause, about or self.repo) from None
                time.sleep(wait)
        raise AssertionError


def _patient_client() -> Any:
    """The Hub client's own connection, which gives up where nothing moves."""
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    client.timeout = PATIENCE
    return client


def _cause(error: BaseException) -> BaseException:
    """What a library's own wrapping is about: the first failure of HTTP in the chain, or the error itself."""
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (HTTPError, OfflineModeIsEnabled)):
            return found
        found = found.__cause__ or found.__context__
    return error


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, HTTPError)


_ANSWERS: Mapping[int, str] = {
    401: "the Hub does not know the token (401); make a new one in its settings, then {log_in}",
    403: "the token may not do this (403); {log_in}, or choose a name of your own",
    404: "the Hub has nothing of this name that the token may see (404); check the name, and the token's rights",
    409: "something else is there or under way (409); try again, or choose another name",
    413: "the Hub finds it too large (413); publish less at a time",
    429: "the Hub wants fewer questions (429); wait a few minutes, and the same command goes on",
}


def explained(error: BaseException, about: str) -> UserError:
    """A failure of the Hub or of the way to it, in one line. It quotes nothing that could hold a token."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return UserError("publish: HF_HUB_OFFLINE is set, so that the Hub is not asked; unset it")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status >= 500:
            return UserError(f"{about}: the Hub fails ({status}); the same command goes on when it is well again")
        known = _ANSWERS.get(status, f"the Hub refuses ({status}: {_line(error.server_message or '')}); check the name")
        return UserError(f"{about}: {known.format(log_in=_LOG_IN)}")
    if isinstance(error, HTTPError):
        return UserError(
            f"{about}: the Hub cannot be reached ({type(error).__name__}); check the network and HF_ENDPOINT, and the "
            "same command goes on"
        )
    return UserError(
        f"{about}: this is no answer of a Hub ({_line(str(error)) or type(error).__name__}); check HF_ENDPOINT"
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
