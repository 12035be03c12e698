"""Documents in a language that has no wordings: left alone, counted, never asked about in English."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import assert_one_line_error, cli, write_corpus

from data_builders.families import families
from instructrec.core.schema import SPLITS, read_manifest, read_split

CHINESE = Path(__file__).parent / "fixtures" / "chinese"
PAGES = 4
ANY = {name for name, family in families().items() if "any" in family.templates}
"""Families with wordings, in English, for documents in every language."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A set from Chinese and English pages."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(CHINESE, write_corpus(folder / "docs") / "zh")
    done = cli("build", "--corpus", str(folder / "docs"), "--output", str(folder / "set"))
    assert done.returncode == 0, done.stderr
    return folder / "set"


def test_only_what_asks_for_the_language_shows_chinese(mixed):
    found = [row for split in SPLITS for row in read_split(mixed, split)]
    chinese = [row for row in found if re.search(r"[\u4e00-\u9fff]{4}", row["prompt"][0]["content"])]
    assert chinese and {row["family"] for row in chinese} == ANY == {"language_identification"}
    assert {row["language"] for row in chinese} == {"zh"}
    assert all(source["path"].startswith("zh/") for row in chinese for source in row["source"])
    assert not any(source["path"].startswith("zh/") for row in found if row not in chinese for source in row["source"])


def test_documents_without_wordings_are_counted(mixed):
    manifest = read_manifest(mixed)
    found = {name: entry["not_applicable"] for name, entry in manifest["families"].items() if entry["kind"] == "text"}
    # What is too short to have a language is applicable to none.
    unknown = {found[name] for name in ANY}
    assert len(unknown) == 1
    assert {n for name, n in found.items() if name not in ANY} == {unknown.pop() + PAGES}


def test_a_corpus_in_one_language_without_wordings_gives_no_set(tmp_path):
    """`language_identification` alone finds something, always with the same answer, which the `majority` gate drops."""
    done = cli("build", "--corpus", str(CHINESE), "--output", str(tmp_path / "set"))
    assert_one_line_error(
        done, f"no instruction could be mined from {PAGES} documents", "24 majority", "a language with"
    )
    assert not list(tmp_path.glob("set*"))


def test_one_language_cannot_be_identified_even_where_the_corpus_gives_other_rows(tmp_path):
    corpus = write_corpus(tmp_path / "docs")
    options = ("--families", "language_identification,title", "--test-documents", "0.1")
    assert cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set"), *options).returncode == 0
    entry = read_manifest(tmp_path / "set")["families"]["language_identification"]
    assert entry["rows"] == 0 and entry["rejected"]["majority"] > 20
