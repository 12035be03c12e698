"""What decides the bytes of an instruction set, together with the corpus."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from data_builders.documents import PYTHON, Fields
from data_builders.families import Family, families
from data_builders.gates import GATE_NAMES
from data_builders.groups import GROUPS, HELD_OUT_GROUPS
from data_builders.readers.formats import TEXT
from data_builders.splits import TEST
from data_builders.written import SYNTHESIZED
from instructrec.core.errors import UserError, nearest
from instructrec.core.schema import TRAIN, VALIDATION


@dataclass(frozen=True)
class BuildConfig:
    """Settings of a build.

    Attributes:
        corpus: a folder, a file, or `python` for what every Python installation carries.
        licence: SPDX identifier of documents that do not name their own.
        fields: of records (JSON Lines, tables, data sets), where they are not named as usual: `text: body` takes the
            text from `body`; see `Fields` in `data_builders/readers/records.py`.
        families: names to mine; empty means all that are not off by default.
        held_out_groups: groups of families (see `data_builders/groups.py`) that only `test_tasks` holds.
        held_out_templates, test_documents, validation_documents: shares in [0, 1).
        per_document: examples of one family from one document at most; a large corpus is asked for fewer (`quota`).
        turns_per_document: training rows of a document are joined into conversations of up to so many turns, those
            about one text first; 1 joins none.
        rows_per_family: training rows of one family at most.
        answer_words_per_family: words in the training answers of one family at most, so that a family with long
            answers does not own the loss.
        weights: family → factor on both maxima; 0 leaves it out of training.
        heldout_rows_per_family: rows of one family in each other split at most.
        gates: names of the gates in force; see `data_builders/gates.py`.
        personal_data: what the `privacy` gate does with secrets and personal data: `mask` or `drop`.
        decontaminate: evaluation files or folders; rows that overlap with them are removed.
        synthesize: the model that writes instructions for spans of the corpus (family `synthesized`) and new wordings:
            the embedded one, a Hub name, a folder, or `http(s)://host:port/v1#model`; empty for none.
        synthesize_rows: spans that it is asked about at most.
        seed: of every choice.
    """

    corpus: str = PYTHON
    licence: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    held_out_groups: tuple[str, ...] = HELD_OUT_GROUPS
    held_out_templates: float = 0.2
    test_documents: float = 0.15
    validation_documents: float = 0.05
    per_document: int = 6
    turns_per_document: int = 1
    rows_per_family: int = 600
    answer_words_per_family: int = 12_000
    weights: dict[str, float] = field(default_factory=dict)
    heldout_rows_per_family: int = 150
    gates: tuple[str, ...] = GATE_NAMES
    personal_data: str = "mask"
    decontaminate: tuple[str, ...] = ()
    synthesize: str = ""
    synthesize_rows: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        known = families()
        of_records, layouts = [entry.name for entry in fields_of(Fields)], sorted(set(TEXT.values()))
        for key, names, allowed, what in (
            ("fields", self.fields, of_records, "field of records"),
            ("families", self.families, known, "family"),
            ("weights", self.weights, known, "family"),
            ("held_out_groups", self.held_out_groups, GROUPS, "group"),
            ("gates", self.gates, GATE_NAMES, "gate"),
        ):
            for name in names:
                if name not in allowed:
                    raise UserError(f"{key}: {name!r} is not a {what}.{nearest(str(name), allowed)}")
        for key in ("held_out_templates", "test_documents", "validation_documents"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"{key}: must be a share from 0 to under 1, not {getattr(self, key)}")
        if self.test_documents + self.validation_documents >= 1:
            raise UserError("test_documents and validation_documents: must leave a share of the documents for training")
        for key, name in self.fields.items():
            if not isinstance(name, str) or not name:
                raise UserError(f"fields: {key} must be the name of a field, not {name!r}")
        if (layout := self.fields.get("layout", Fields.layout)) not in layouts:
            hint = nearest(layout, layouts)
            raise UserError(f"fields: layout must be one of {', '.join(layouts)}, not {layout!r}.{hint}")
        if not self.corpus:
            raise UserError("corpus: must be a folder, a file, or `python`; it is empty")
        if SYNTHESIZED in self.families and not self.synthesize:
            raise UserError(f"families: {SYNTHESIZED!r} needs a model that writes; give --synthesize MODEL")
        counts = ("per_document", "turns_per_document", "rows_per_family", "answer_words_per_family")
        for key in (*counts, "heldout_rows_per_family", "synthesize_rows"):
            if getattr(self, key) < 1:
                raise UserError(f"{key}: must be 1 or more, not {getattr(self, key)}")
        for name, weight in self.weights.items():
            if not isinstance(weight, (int, float)) or weight < 0:
                raise UserError(f"weights: {name} must be 0 or more, not {weight!r}")
        if self.personal_data not in ("mask", "drop"):
            raise UserError(f"personal_data: must be 'mask' or 'drop', not {self.personal_data!r}")

    @property
    def mined_families(self) -> list[Family]:
        without = () if self.synthesize else (SYNTHESIZED,)
        return [
            family
            for name, family in families().items()
            if (name in self.families if self.families else not family.off) and name not in without
        ]

    @property
    def record_fields(self) -> Fields:
        return Fields.named(self.fields)

    @property
    def document_licence(self) -> str:
        return self.licence or ("PSF-2.0" if self.corpus == PYTHON else "unknown")

    @property
    def examples_wanted(self) -> list[tuple[str, float, float]]:
        """(side, its share of the documents, examples of a family that the balance can use from it)."""
        held = [(TEST, self.test_documents), (VALIDATION, self.validation_documents)]
        train = max([1.0, *self.weights.values()]) * self.rows_per_family
        return [(TRAIN, 1 - sum(share for _, share in held), train)] + [
            (side, share, self.heldout_rows_per_family) for side, share in held
        ]

    def portable(self) -> dict[str, Any]:
        """The config as the manifest shows it: corpus and evaluations by name, without their place on this machine."""
        anywhere = self.corpus == PYTHON or self.corpus.startswith("hf://")
        name = self.corpus if anywhere else Path(self.corpus).resolve().name
        model = self.synthesize.rpartition("#")[2]
        return asdict(self) | {
            "corpus": name,
            "licence": self.document_licence,
            "synthesize": Path(model).resolve().name if model and Path(model).is_dir() else model,
            "decontaminate": [Path(path).resolve().name for path in self.decontaminate],
        }
