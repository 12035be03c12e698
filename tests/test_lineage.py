"""Lineage tells everything but secrets."""

import sys
import time

import pytest

from instructrec.core.errors import UserError
from instructrec.lineage import read_lineage, write_lineage


def test_lineage_round_trips_without_credentials(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sft.py", "--hub_token", "hf_abc", "--api_key=sk_def", "--seed", "3"])
    config = {"hub_token": "hf_abc", "seed": 3, "include_num_input_tokens_seen": True}
    write_lineage(tmp_path, "sft", config, {"rows": 3}, time.time(), seed=3)
    text = (tmp_path / "lineage.json").read_text()
    assert "hf_abc" not in text and "sk_def" not in text
    lineage = read_lineage(tmp_path)
    assert lineage["config"] == {"seed": 3, "include_num_input_tokens_seen": True}
    assert lineage["command"] == ["sft.py", "--hub_token", "***", "--api_key=***", "--seed", "3"]
    assert lineage["versions"]["python"] and lineage["hardware"]["cpus"]


def test_a_missing_lineage_is_null_and_a_broken_one_named(tmp_path):
    assert read_lineage(tmp_path) is None
    (tmp_path / "lineage.json").write_text("{")
    with pytest.raises(UserError, match=r"lineage\.json: not JSON"):
        read_lineage(tmp_path)
