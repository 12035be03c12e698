"""Publishing an adapter or an instruction set: gathered, searched for what must stay, sent, and read back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint, write_text
from instructrec.core.licences import count_licences, first_row, hub_licences, may_publish, read_terms
from instructrec.core.schema import Lineage, read_manifest
from instructrec.hub import Hub, check_card, check_name
from instructrec.lineage import read_lineage, weights_sha256
from instructrec.model_card import Base, dtype_of, render, training_data
from instructrec.models import EMBEDDED, base_of, cache_folder, resolve_model
from instructrec.outgoing import (
    ADAPTER_FILES,
    CARD,
    CONFIG,
    EVALUATION,
    LINEAGE,
    SET_FILES,
    Files,
    adapter_files,
    as_json,
    collect,
    portable,
    portable_lineage,
    read_object,
    size,
)
from instructrec.secret_scan import EVERYTHING, SECRETS, Leak, refuse, scan

MOST_LISTED = 8
"""Files that stay which are named."""

_LICENCE = "apache-2.0"
"""Of the embedded base model, by the Hub's name."""


@dataclass(frozen=True)
class Publication:
    """The files of one revision.

    Attributes:
        step: of the checkpoint that it is; null for the finished adapter or a set.
    """

    files: Files
    step: int | None = None

    @property
    def branch(self) -> str | None:
        """Where it goes; null for the main branch."""
        return None if self.step is None else f"checkpoint-{self.step}"


def publish_adapter(
    folder: Path,
    repo: str,
    private: bool = False,
    dry_run: bool = False,
    base: str | None = None,
    evaluation: Path | None = None,
    trained_on: Sequence[str] = (),
    licence: str | None = None,
    checkpoints: bool = False,
    files_only: bool = False,
    card: Path | None = None,
) -> None:
    """Publish the adapter in `folder` as `repo`, download it again and compare its logits.

    Args:
        dry_run: only list what would go out; needs neither token nor network.
        base: `OWNER/NAME[@REVISION]` under which readers find the base; by default as it was named in training.
        evaluation: a folder of recipes/evaluate.py; by default the sibling `eval`, if it scored this adapter.
        trained_on: published sets that it was trained on.
        licence: of the adapter, by the Hub's name; by default the base's.
        checkpoints: also publish every checkpoint, each as a branch.
        files_only: compare what was downloaded byte by byte, but load no model.
        card: a file that the card is also written to, for reading.

    Raises:
        UserError: something in the folder must not go out, the base is another than the adapter's, or the Hub refuses.
    """
    check_name(repo)
    if (folder / "manifest.json").is_file() and not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: is an instruction set; give --dataset with it")
    if (folder / "config.json").is_file() and not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: is a whole model; adapters and instruction sets are published")
    name, revision = _base_name(folder, base)
    for dataset in trained_on:
        check_name(dataset, "--trained-on")
    lineage = _lineage(folder)
    hub = None if dry_run else Hub(repo, "model")
    known = _known(hub)
    _refuse_secrets(folder, known)
    found = _checked_base(hub, name, revision, lineage)
    if hub:
        for dataset in trained_on:
            _check_trained_on(dataset, lineage)
    steps: list[tuple[Path, int | None]] = [(folder, None)]
    if checkpoints:
        steps += [(path, _step(path)) for path in sorted(folder.glob("checkpoint-*"), key=_step) if _step(path) >= 0]
        if len(steps) == 1:
            raise UserError(f"--checkpoints: {folder} has none")
    publications = [
        _adapter(place, step, folder, repo, lineage, found, evaluation, trained_on, licence) for place, step in steps
    ]
    _refuse_leaks(publications, known, "take it out, or build the set with --personal-data mask")
    _show(folder, publications)
    for publication in publications:
        check_card("model", publication.files, hub)
    if card is not None:
        card.parent.mkdir(parents=True, exist_ok=True)
        write_text(card, cast(bytes, publications[0].files[CARD]).decode())
    if hub is None:
        if name != EMBEDDED:
            print(f"the base's weights were not compared with those of {name} on the Hub")
        print("dry run: nothing was sent")
        return
    commits = _send(hub, publications, ADAPTER_FILES, private)
    with tempfile.TemporaryDirectory() as place:
        for publication, commit in zip(publications, commits, strict=True):
            hub.read_back(commit, publication.files, Path(place) / (publication.branch or "main"))
        print("downloaded again: every byte is the same")
        if not files_only:
            from instructrec.read_back import QUESTIONS, logit_difference

            weights = resolve_model(found.name, found.revision)
            difference = logit_difference(weights, dtype_of(lineage), folder, Path(place) / "main")
            print(f"logits of {len(QUESTIONS)} prompts: largest difference {difference}")
            if difference != 0.0:
                raise UserError(f"{hub.address}: its logits differ by {difference:.3g} from those of {folder}")


def publish_set(
    folder: Path, repo: str, private: bool = False, dry_run: bool = False, licences: Path | None = None
) -> None:
    """Publish the instruction set in `folder` as the dataset `repo`, download it again and compare it.

    Args:
        licences: a YAML that extends the table of licences.

    Raises:
        UserError: the set changed since it was built, a row's licence does not allow it or a row holds personal data,
            or the Hub refuses.
    """
    check_name(repo)
    manifest = read_manifest(folder)
    if fingerprint(folder, "*.parquet") != manifest["fingerprint"]:
        raise UserError(f"{folder}: its Parquet files changed since it was built; build it again")
    names = _allowed_licences(folder, licences)
    files = collect(folder, SET_FILES)
    if (lineage := read_lineage(folder)) is not None:
        files[LINEAGE] = as_json(portable(lineage))
    files[CARD] = _with_licence(folder / CARD, names).encode()
    hub = None if dry_run else Hub(repo, "dataset")
    known = _known(hub)
    _refuse_secrets(folder, known, files)
    publication = Publication(files)
    _refuse_leaks([publication], known, "build the set again with --personal-data mask and the gate `privacy`")
    _show(folder, [publication])
    check_card("dataset", files, hub)
    if hub is None:
        print("dry run: nothing was sent")
        return
    (commit,) = _send(hub, [publication], SET_FILES, private)
    with tempfile.TemporaryDirectory() as place:
        hub.read_back(commit, files, Path(place))
    print("downloaded again: every byte is the same")


def _base_name(folder: Path, base: str | None) -> tuple[str, str | None]:
    """The base's published name and revision. Raises `UserError` where only this machine has it."""
    trained = base_of(folder)
    name, _, revision = (trained or "" if base is None else base).partition("@")
    if name == EMBEDDED:
        return name, None
    local = name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).is_dir()
    if base is None and local:
        raise UserError(
            f"{folder}: was trained on {trained!r}, which readers do not have; give --base OWNER/NAME[@REVISION], "
            "where the Hub has the same weights"
        )
    check_name(name, "--base", owned=False)
    return name, revision or None


def _lineage(folder: Path) -> Lineage:
    """An adapter's lineage. Raises `UserError` if there is none, or one of other weights."""
    lineage = read_lineage(folder)
    if lineage is None:
        raise UserError(f"{folder}: no lineage.json there, from which the card is made; train with a recipe")
    if not isinstance(lineage, dict) or "model" not in lineage.get("inputs", ()):
        raise UserError(f"{folder}: its lineage.json tells of no base model; train with a recipe")
    if weights_sha256(folder) != lineage["inputs"].get("output"):
        raise UserError(f"{folder}: its weights are not those that its lineage.json tells of; train it again")
    return lineage


def _checked_base(hub: Hub | None, name: str, revision: str | None, lineage: Lineage) -> Base:
    """The base, after its weights were compared with those that the adapter was trained on.

    Without a Hub only the embedded model can be compared, and only if it is there.
    """
    model = lineage["inputs"]["model"]
    licence: Any = None
    there: dict[str, str] = {}
    if name == EMBEDDED:
        licence = _LICENCE
        if hub or (cache_folder() / EMBEDDED).is_dir():
            there = weights_sha256(resolve_model(EMBEDDED))
    else:
        revision = revision or model.get("revision") or "main"
        if hub:
            info = hub.model(name, revision)
            there = {file.rfilename: file.lfs.sha256 for file in info.siblings if file.lfs is not None}
            licence = info.card_data.get("license") if info.card_data else None
            revision = info.sha
    for file, wanted in model["sha256"].items() if hub or there else ():
        if there.get(file) != wanted:
            raise UserError(
                f"base {name}: its {file} is {(there.get(file) or 'missing')[:12]}, and the adapter was trained on "
                f"{wanted[:12]} (SHA-256); give --base OWNER/NAME@REVISION where the Hub has the latter"
            )
    return Base(name, revision, licence if isinstance(licence, str) else None)


def _check_trained_on(dataset: str, lineage: Lineage) -> None:
    """Raise `UserError` unless the published set is one that the adapter was trained on."""
    with tempfile.TemporaryDirectory() as place:
        Hub(dataset, "dataset").download(None, ["manifest.json"], Path(place))
        if not (Path(place) / "manifest.json").is_file():
            raise UserError(f"--trained-on {dataset}: is no instruction set (it has no manifest.json)")
        published = read_manifest(Path(place))["fingerprint"]
    known = [part.get("fingerprint") for part in training_data(lineage)]
    if published not in known:
        raise UserError(f"--trained-on {dataset}: has the fingerprint {published[:12]}, and none of the adapter's sets")


def _step(checkpoint: Path) -> int:
    """The step of a checkpoint's folder, -1 for another folder."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _adapter(
    place: Path,
    step: int | None,
    folder: Path,
    repo: str,
    lineage: Lineage,
    base: Base,
    evaluation: Path | None,
    trained_on: Sequence[str],
    licence: str | None,
) -> Publication:
    """What goes out of `place`: the adapter's folder or, with a `step`, one of its checkpoints."""
    files = adapter_files(place, base.name, base.revision, folder)
    published = portable_lineage(lineage, base.name, base.revision)
    evaluated, pictures = None, {}
    if step is None:
        from instructrec.evaluation.of_adapter import evaluation_of

        evaluated = evaluation_of(folder, lineage, evaluation, base.name, repo)
    else:
        published = _lineage_of_checkpoint(published, place, step)
    if evaluated:
        from instructrec.evaluation.pictures import draw

        files[f"{EVALUATION}/scores.json"] = as_json(evaluated.scores)
        with tempfile.TemporaryDirectory() as drawn:
            for name, title in draw(evaluated.scores, Path(drawn)).items():
                files[f"{EVALUATION}/{name}"] = (Path(drawn) / name).read_bytes()
                pictures[f"{EVALUATION}/{name}"] = title
        evaluated = replace(evaluated, settings=portable(evaluated.settings))
    files[LINEAGE] = as_json(published)
    config = json.loads(cast(bytes, files[CONFIG]))
    files[CARD] = render(repo, published, config, base, licence, trained_on, evaluated, pictures, step).encode()
    return Publication(files, step)


def _lineage_of_checkpoint(lineage: Lineage, place: Path, step: int) -> Lineage:
    """The lineage of the run, cut at a checkpoint: its own weights, steps and tokens."""
    path = place / "trainer_state.json"
    state: dict[str, Any] = read_object(path) if path.is_file() else {}
    training = (lineage["training"] or {}) | {"steps": step, "tokens": state.get("num_input_tokens_seen"), "loss": None}
    inputs = lineage["inputs"] | {"output": weights_sha256(place)}
    return cast(Lineage, {**lineage, "inputs": inputs, "training": training})


def _known(hub: Hub | None) -> list[str]:
    """The token in use, or the one that would be: no file may hold it, whatever it looks like."""
    from huggingface_hub import get_token

    token = hub.token if hub else get_token()
    return [token] if token else []


def _refuse_secrets(folder: Path, known: Sequence[str], files: Files | None = None) -> None:
    """Raise `UserError` if any file of the folder holds a secret, whether it would go out or not.

    Args:
        files: those that go out and are searched for more later; by default none of them.
    """
    leaks: list[Leak] = []
    searched = set((files or {}).values())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in searched:
            leaks += scan(str(path), path, SECRETS, known)
    refuse(leaks, "take it out, and make the secret void where it was issued")


def _refuse_leaks(publications: Iterable[Publication], known: Sequence[str], mend: str) -> None:
    leaks = [
        leak
        for publication in publications
        for path, content in publication.files.items()
        for leak in scan(path, content, EVERYTHING, known)
    ]
    refuse(leaks, mend)


def _show(folder: Path, publications: Sequence[Publication]) -> None:
    """Print every file that goes out with its size, and what stays."""
    sizes, going = [], set()
    for publication in publications:
        prefix = f"{publication.branch}: " if publication.branch else ""
        for path, content in sorted(publication.files.items()):
            print(f"{size(content):>14,}  {prefix}{path}")
            sizes.append(size(content))
            going.add(folder / (publication.branch or "") / path)
    print(f"{sum(sizes):>14,}  bytes in {len(sizes)} files")
    stays = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in going]
    if stays:
        named = ", ".join(str(path.relative_to(folder)) for path in stays[:MOST_LISTED])
        print(f"stays here: {named}{f' and {len(stays) - MOST_LISTED} more' if len(stays) > MOST_LISTED else ''}")


def _send(hub: Hub, publications: Sequence[Publication], patterns: tuple[str, ...], private: bool) -> list[str]:
    """Create the repository and commit every publication; return the commits."""
    is_private = hub.create(private)
    commits = []
    for publication in publications:
        what = publication.branch or ("instruction set" if hub.kind == "dataset" else "adapter")
        commits.append(hub.upload(publication.files, patterns, f"Publish {what}", publication.branch))
        where = f" as the branch {publication.branch}" if publication.branch else ""
        print(f"published {hub.address}{where} ({'private' if is_private else 'public'}, commit {commits[-1][:12]})")
    return commits


def _allowed_licences(folder: Path, extension: Path | None) -> list[str]:
    """The Hub's names of a set's licences. Raises `UserError` for the first that does not allow publishing."""
    from instructrec.config import read_yaml

    terms = read_terms(read_yaml(extension) if extension else None, str(extension))
    counts = count_licences(folder)
    for licence, rows in counts.items():
        if not may_publish(licence, terms):
            raise UserError(
                f"{folder}: {rows} rows have the licence {licence!r}, which is not known to allow publishing them "
                f"(first: {first_row(folder, licence)}); leave that text out, name its licence (build --licence), or "
                "allow it in --licences FILE"
            )
    return hub_licences(counts, terms)


def _with_licence(card: Path, names: Sequence[str]) -> str:
    """A set's card with its licences in the front matter. Raises `UserError` if it is not there or not readable."""
    from huggingface_hub import DatasetCard
    from yaml import YAMLError

    try:
        found = DatasetCard(card.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{card}: not readable as the card of a set ({reason}); build the set again") from None
    found.data["license"] = names[0] if len(names) == 1 else list(names)
    return str(found)
