"""The contracts name what is wrong and where."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec.core.errors import UserError
from instructrec.core.schema import (
    INSTRUCTION,
    PAIR,
    SCORED_RESPONSE,
    SUITE_ITEM,
    check_instruction,
    check_record,
    instruction_id,
    read_split,
    read_suite,
)

ROW = {
    "id": "a",
    "prompt": [{"role": "user", "content": "Title this: …"}],
    "completion": [{"role": "assistant", "content": "Storms"}],
    "conversation": None,
    "turn": None,
    "family": "title",
    "group": "naming",
    "template": "title.en.01",
    "language": "en",
    "kind": "text",
    "targets": ["Storms"],
    "choices": None,
    "checks": None,
    "source": [{"path": "a.md", "sha256": "0", "start": 0, "end": 9, "extractor": "utf8/1", "licence": "MIT"}],
}
ITEM = {"id": "1", "category": "c", "instruction": "Say yes.", "input": "", "targets": ["yes"], "choices": None}


def test_a_good_row_passes_and_all_null_columns_keep_their_type():
    check_instruction(ROW, "here")
    table = pa.Table.from_pylist([ROW], INSTRUCTION)
    assert table.schema.field("checks").type == pa.string()
    assert table.schema.field("choices").type == pa.list_(pa.string())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion": [{"role": "assistant", "content": "  "}]}, "'completion' is empty"),
        ({"completion": [{"role": "user", "content": "x"}]}, "role 'assistant'"),
        ({"prompt": []}, "role 'user'"),
        ({"targets": []}, "no accepted answer"),
        ({"choices": ["A"]}, "two distinct options"),
        ({"choices": ["A", "B"]}, "'Storms' is not among 'choices'"),
        ({"checks": "{"}, "'checks' is not JSON"),
        ({"turn": 1}, "'conversation' and 'turn'"),
        ({"family": 3}, "key 'family' must be string, not int"),
        ({"family": None}, "key 'family' is null"),
        ({"famly": "title"}, "unknown key 'famly'. Did you mean 'family'?"),
        ({"source": [{**ROW["source"][0], "start": 10}]}, "10..9"),
        ({"source": [{"path": "a"}]}, "'source[0].sha256' is missing"),
    ],
)
def test_a_broken_row_is_named(change, message):
    with pytest.raises(UserError) as raised:
        check_instruction(ROW | change, "set/train/0.parquet, row 7")
    assert "set/train/0.parquet, row 7" in str(raised.value) and message in str(raised.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(INSTRUCTION.names + PAIR.names + ["x"]), json_values) | json_values)
def test_no_record_breaks_the_checker(record):
    for schema in (INSTRUCTION, PAIR, SCORED_RESPONSE, SUITE_ITEM):
        try:
            check_record(record, schema, "here")
        except UserError as error:
            assert str(error).startswith("here: ")
        else:
            pa.Table.from_pylist([record], schema)  # what passes can be written


def test_ids_depend_on_every_part():
    parts = (ROW["source"], "title", "title.en.01", ROW["prompt"], "Storms")
    changed = [
        ([{**ROW["source"][0], "end": 8}], *parts[1:]),
        (parts[0], "heading", *parts[2:]),
        (*parts[:2], "title.en.02", *parts[3:]),
        (*parts[:3], [{"role": "user", "content": "x"}], parts[4]),
        (*parts[:4], "Storm"),
    ]
    ids = {instruction_id(*parts), *(instruction_id(*p) for p in changed)}
    assert len(ids) == 6 and all(len(i) == 32 for i in ids)


def test_splits_of_a_foreign_parquet_are_refused(tmp_path):
    import pyarrow.parquet as pq

    (tmp_path / "train").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "train" / "0.parquet")
    with pytest.raises(UserError, match=r"0\.parquet: columns do not fit"):
        next(read_split(tmp_path, "train"))
    (tmp_path / "train" / "0.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"0\.parquet: not a readable Parquet file"):
        next(read_split(tmp_path, "train"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([ITEM, "{"], "suite.jsonl:2: not JSON"),
        ([ITEM, {**ITEM, "id": "2", "targets": []}], "suite.jsonl:2: an item needs an answer in 'targets'"),
        ([ITEM, "", ITEM], "suite.jsonl:3: id '1' was used in line 1"),
        ([{**ITEM, "choices": ["no", "maybe"]}], "suite.jsonl:1: target 'yes' is not among 'choices'"),
        ([{**ITEM, "tragets": []}], "suite.jsonl:1: unknown key 'tragets'. Did you mean 'targets'?"),
        ([[1]], "suite.jsonl:1: must be an object"),
        ([], "suite.jsonl: no items"),
    ],
)
def test_a_malformed_suite_is_named_by_line(tmp_path, lines, message):
    path = tmp_path / "suite.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    with pytest.raises(UserError) as raised:
        list(read_suite(path))
    assert message in str(raised.value)
