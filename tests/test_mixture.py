"""Mixtures: how many rows of each part, which tokens, what is held out across parts, and that plan and run agree."""

import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import yaml
from conftest import ROOT, assert_one_line_error, assert_refused, cli, recipe

from instructrec.chat_templates import choose_template
from instructrec.config import parse
from instructrec.core.errors import UserError
from instructrec.core.files import sha256_file
from instructrec.core.schema import HELD_OUT, VALIDATION, read_manifest, read_split
from instructrec.data import NOT_SUPERVISED, DataArguments, HeldOutArguments, load_set, trainable
from instructrec.evaluation.contamination import training_sets
from instructrec.mixture import MOST_PASSES, Mixture, Use
from instructrec.models import load_tokenizer
from instructrec.parts import read_parts
from instructrec.trl_formats import open_text, pieces_of

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in ("n", "rt", "sh", "ving")]
LENGTH = 256
HELD = (VALIDATION, *HELD_OUT)

CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"Name the number {n}."},
            {"role": "assistant", "content": f"It is {n}."},
            {"role": "user", "content": "And the next one?"},
            {"role": "assistant", "content": f"That is {n + 1}."},
        ]
    }
    for n in range(40)
]
PROMPTS = [{"prompt": chat["messages"][:3], "completion": chat["messages"][3:], "other": 1} for chat in CHATS]
TEXTS = [{"prompt": f"Number {n}:", "completion": f" {n + 1}"} for n in range(40)]


def prose(seed: int, words: int = 300) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    choose_template(tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def other_set(corpus, tmp_path_factory):
    """A set of the same corpus, with conversations, whose seed holds other documents and wordings out."""
    output = tmp_path_factory.mktemp("other") / "set"
    options = ("--seed", "1", "--rows-per-family", "30", "--heldout-rows-per-family", "15", "--turns-per-document", "3")
    done = cli("build", "--corpus", str(corpus), "--output", str(output), "--workers", "1", *options)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def documents(tmp_path):
    """Plain text that no set has seen."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n:02}.txt").write_text(prose(n))
    return folder


def mix(tokenizer, *parts: dict, max_rows: int | None = None, **args):
    """An epoch of a mixture: its rows, their names, and what it has of each part, by name."""
    values = [{key: str(value) if isinstance(value, Path) else value for key, value in part.items()} for part in parts]
    mixture = Mixture(read_parts(values), max_rows)
    keys = SimpleNamespace(**{"max_length": LENGTH, "seed": 0, "data_seed": None} | args)
    rows, names, _ = mixture.encode(None, tokenizer, keys)
    assert len(rows) == len(names) == sum(use.rows for use in mixture.uses)
    assert sum(len(row["input_ids"]) for row in rows) == sum(use.tokens for use in mixture.uses)
    return rows, names, {use.name: use for use in mixture.uses}


def prepared(tiny_model: Path, tokenizer, rows: list[dict], tmp_path: Path, **options):
    """What TRL makes of a set."""
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, max_length=None, report_to=[], **options
    )
    data = datasets.Dataset.from_list(rows)
    return SFTTrainer(str(tiny_model), args, train_dataset=data, processing_class=tokenizer).train_dataset


def pairs(rows) -> Counter:
    return Counter((tuple(row["input_ids"]), tuple(row["labels"])) for row in rows)


class TestAmounts:
    def test_a_weight_is_how_often_an_epoch_has_each_row(self, instruction_set, tokenizer, tmp_path):
        chats, prompts = jsonl(tmp_path / "chats.jsonl", CHATS), jsonl(tmp_path / "prompts.jsonl", PROMPTS)
        _, names, uses = mix(
            tokenizer, {"name": instruction_set}, {"name": chats, "weight": 2.25}, {"name": prompts, "weight": 0.4}
        )
        times = Counter(names)
        rows = load_set(str(instruction_set))["train"]["id"]
        assert all(times[name] == 1 for name in rows) and uses[str(instruction_set)].rows == len(rows)
        of_chats = Counter(times[f"{chats}:{n}"] for n in range(40))
        assert of_chats == {2: 30, 3: 10} and (uses[str(chats)].rows, uses[str(chats)].distinct) == (90, 40)
        of_prompts = Counter(times[f"{prompts}:{n}"] for n in range(40))
        assert of_prompts == {1: 16, 0: 24} and (uses[str(prompts)].rows, uses[str(prompts)].distinct) == (16, 16)
        assert sum(use.portion for use in uses.values()) == pytest.approx(1)

    def test_parts_are_mixed_and_a_smaller_weight_takes_rows_of_a_larger_one(self, tokenizer, tmp_path):
        chats, prompts = jsonl(tmp_path / "chats.jsonl", CHATS), jsonl(tmp_path / "prompts.jsonl", PROMPTS)
        _, names, _ = mix(tokenizer, {"name": chats}, {"name": prompts, "weight": 0.75})
        first = sum(name.startswith(str(chats)) for name in names[:35])
        assert 10 < first < 30  # seen: 20 of 40
        _, fewer, _ = mix(tokenizer, {"name": chats}, {"name": prompts, "weight": 0.25})
        assert set(fewer) < set(names)

    def test_the_seed_decides_and_nothing_else(self, tokenizer, tmp_path, documents):
        chats = jsonl(tmp_path / "chats.jsonl", CHATS)
        parts = {"name": chats, "weight": 0.5}, {"text": documents, "share": 0.2}
        rows, names, _ = mix(tokenizer, *parts)
        again, same, _ = mix(tokenizer, *parts)
        assert names == same and rows.to_list() == again.to_list()
        assert mix(tokenizer, *parts, seed=1)[1] != names
        assert mix(tokenizer, *parts, seed=1, data_seed=0)[1] == names

    @pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
    def test_a_share_is_of_all_tokens(self, share, tokenizer, tmp_path, documents):
        chats = jsonl(tmp_path / "chats.jsonl", CHATS)
        _, _, uses = mix(tokenizer, {"name": chats, "weight": 4}, {"text": documents, "share": share})
        text = uses[str(documents)]
        assert uses[str(chats)].rows == 160
        assert abs(text.tokens - share * sum(use.tokens for use in uses.values())) <= LENGTH
        assert text.portion == pytest.approx(share, abs=0.05)

    def test_a_share_of_large_documents_tokenizes_about_what_it_needs(self, tokenizer, tmp_path, monkeypatch):
        chats = jsonl(tmp_path / "chats.jsonl", CHATS)
        place = jsonl(tmp_path / "books.jsonl", [{"text": prose(n, 20_000)} for n in range(60)])  # 120 kB each
        cut = []

        def pieces(texts, *rest):
            cut.extend(texts)
            return pieces_of(texts, *rest)

        monkeypatch.setattr("instructrec.mixture.pieces_of", pieces)
        _, _, uses = mix(tokenizer, {"name": chats}, {"text": place, "share": 0.2})
        assert uses[str(place)].portion == pytest.approx(0.2, abs=0.05) and len(cut) < 20

    def test_a_share_repeats_what_is_short_up_to_a_limit(self, tokenizer, tmp_path):
        chats = jsonl(tmp_path / "chats.jsonl", CHATS)
        (tmp_path / "short.txt").write_text(prose(0, 1200))
        parts = {"name": chats, "weight": 4}, {"text": tmp_path / "short.txt", "share": 0.4}
        _, _, uses = mix(tokenizer, *parts)
        use = uses[str(tmp_path / "short.txt")]
        assert use.distinct < use.rows <= MOST_PASSES * use.distinct
        assert use.portion == pytest.approx(0.4, abs=0.03)
        with pytest.raises(
            UserError, match=r"short.txt: its share is [\d,]+ tokens, and it has [\d,]+, which are used 4"
        ):
            mix(tokenizer, parts[0], parts[1] | {"share": 0.9})

    def test_max_train_rows_cuts_the_mixture(self, tokenizer, tmp_path):
        chats, prompts = jsonl(tmp_path / "chats.jsonl", CHATS), jsonl(tmp_path / "prompts.jsonl", PROMPTS)
        parts = {"name": chats}, {"name": prompts}
        _, names, _ = mix(tokenizer, *parts)
        _, cut, uses = mix(tokenizer, *parts, max_rows=20)
        assert cut == names[:20] and sum(use.rows for use in uses.values()) == 20

    def test_a_part_has_one_line(self):
        use = Use(
            "a", "a, train[:9]", "messages", "weight 2", "f", 1200, 600, 34567, 0.25, {"with a held-out prompt": 3}
        )
        assert str(use) == (
            "mixture: a, train[:9] (messages, weight 2): 1,200 rows (600 different), 34,567 tokens (25.0%); "
            "left out 3 with a held-out prompt"
        )


class TestFormats:
    """The tokens of every format are those that TRL makes of it, and what is supervised are answers."""

    @pytest.mark.parametrize(
        ("rows", "options", "kind"),
        [
            (CHATS, {"assistant_only_loss": True}, "messages"),
            (PROMPTS, {}, "prompt and completion"),
            (TEXTS, {}, "prompt and completion without chat template"),
        ],
        ids=["messages", "prompts", "texts"],
    )
    @pytest.mark.parametrize("form", ["jsonl", "folder", "parquet", "saved"])
    def test_instructions(self, rows, options, kind, form, tiny_model, tokenizer, tmp_path):
        place = tmp_path / "mine"
        data = datasets.Dataset.from_list(rows)
        if form == "jsonl":
            place = jsonl(tmp_path / "mine.jsonl", rows)
        elif form == "saved":
            data.save_to_disk(str(place))
        else:
            place.mkdir()
            (place / "README.md").write_text("---\nlanguage: en\n---\nA card.")
            data.to_parquet(str(place / "rows.parquet"))
            place = place if form == "folder" else place / "rows.parquet"
        found, names, uses = mix(tokenizer, {"name": place})
        theirs = prepared(tiny_model, tokenizer, rows, tmp_path, **options)
        assert pairs(found) == pairs(theirs)
        assert uses[str(place)].kind == kind and set(names) == {f"{place}:{n}" for n in range(40)}
        assert all(NOT_SUPERVISED in row["labels"] and row["labels"][-1] != NOT_SUPERVISED for row in found)

    def test_an_instruction_set_has_the_tokens_it_has_alone(self, instruction_set, tiny_model, tokenizer, tmp_path):
        found, names, _ = mix(tokenizer, {"name": instruction_set}, max_rows=40)
        alone = load_set(str(instruction_set))["train"]
        place = {name: n for n, name in enumerate(alone["id"])}
        rows, _ = trainable(alone.select([place[name] for name in names]), None, tokenizer)
        theirs = prepared(tiny_model, tokenizer, rows.to_list(), tmp_path)
        assert [(a["input_ids"], a["labels"]) for a in found] == [(b["input_ids"], b["labels"]) for b in theirs]

    @pytest.mark.parametrize("form", ["files", "jsonl"])
    def test_raw_text_is_supervised_everywhere(self, form, tiny_model, tokenizer, tmp_path, documents):
        texts = [file.read_text() for file in sorted(documents.iterdir())]
        (documents / "picture.png").write_bytes(b"\x89PNG")
        (documents / "latin.txt").write_bytes("Übermut".encode("latin-1"))
        (documents / "blank.md").write_text(" \n")
        rows = [{"text": text, "url": "x"} for text in texts] + [{"text": None, "url": "y"}, {"text": "", "url": "z"}]
        place = documents if form == "files" else jsonl(tmp_path / "text.jsonl", rows)
        chats = jsonl(tmp_path / "chats.jsonl", CHATS)
        found, names, uses = mix(tokenizer, {"name": chats}, {"text": place})
        pieces = [row for row, name in zip(found, names, strict=True) if name.startswith(str(place))]
        assert all(row["labels"] == row["input_ids"] and 1 < len(row["labels"]) <= LENGTH for row in pieces)
        theirs = prepared(tiny_model, tokenizer, [{"text": text} for text in texts], tmp_path)
        whole = [ids for row in theirs for ids in row["input_ids"]]
        assert Counter(t for row in pieces for t in row["labels"]) == Counter(whole)
        ends = [row for row in pieces if row["labels"][-1] == tokenizer.eos_token_id]
        assert len(ends) == 40 and len(pieces) > 80
        expected = {"without text": 1, "that are no plain text": 2} if form == "files" else {"without text": 2}
        assert uses[str(place)].left_out == expected

    def test_a_changed_file_of_raw_text_is_read_again(self, documents):
        found = [open_text(str(documents), None, None, None)]
        (documents / "00.txt").write_text("changed")
        (documents / "LATER.TXT").write_text("\ufeffadded")
        found.append(open_text(str(documents), None, None, None))
        assert [len(rows) for rows, *_ in found] == [40, 41]
        rows, hashes, unread = found[1]
        assert rows["text"][0] == "changed" and rows["text"][40] == "added" and unread == 0
        assert hashes == [sha256_file(file) for file in sorted(documents.iterdir())]

    def test_rows_without_an_answer_are_left_out(self, tokenizer, tmp_path):
        user, said = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
        odd = [[user], [said], [user, said | {"content": " "}], [user, said | {"content": None}], []]
        place = jsonl(tmp_path / "odd.jsonl", [*CHATS, *({"messages": messages} for messages in odd)])
        _, _, uses = mix(tokenizer, {"name": place})
        assert uses[str(place)].rows == 40 and uses[str(place)].left_out == {"without an answer": 5}

    def test_a_slice_of_a_split_and_a_changed_folder(self, tokenizer, tmp_path):
        place = tmp_path / "folder"
        place.mkdir()
        (place / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: rows.jsonl\n---\n")
        jsonl(place / "rows.jsonl", CHATS)
        rows, names, uses = mix(tokenizer, {"name": place, "split": "train[:5]"})
        assert len(rows) == 5 and set(names) == {f"{place}, train[:5]:{n}" for n in range(5)}
        jsonl(place / "rows.jsonl", CHATS[::-1])
        changed, _, after = mix(tokenizer, {"name": place, "split": "train[:5]"})
        assert pairs(changed) != pairs(rows) and after[str(place)].fingerprint != uses[str(place)].fingerprint


class TestHeldOut:
    """What one part holds out, no part trains on."""

    def test_rows_of_another_set_are_left_out(self, instruction_set, other_set, tokenizer):
        _, names, uses = mix(tokenizer, {"name": instruction_set}, {"name": other_set})
        kept = set(names)
        for mine, theirs in ((instruction_set, other_set), (other_set, instruction_set)):
            held = [row for split in HELD for row in read_split(theirs, split)]
            prompts = {row["prompt"][-1]["content"] for row in held}
            files = {(s["sha256"], at) for row in held for s in row["source"] for at in range(s["start"], s["end"])}
            unseen = read_manifest(theirs)["held_out"]
            leaking: dict[str, bool] = {}  # a conversation is its last row
            last: dict[str, str] = {}
            for row in read_split(mine, "train"):
                leaks = (
                    row["prompt"][-1]["content"] in prompts
                    or row["family"] in unseen["families"]
                    or row["template"] in unseen["templates"]
                    or any((s["sha256"], at) in files for s in row["source"] for at in range(s["start"], s["end"]))
                )
                key = row["conversation"] or row["id"]
                leaking[key], last[key] = leaks or leaking.get(key, False), row["id"]
            assert not any(leaks and last[key] in kept for key, leaks in leaking.items())
            use = uses[str(mine)]
            assert len(set(last.values()) - kept) == sum(use.left_out.values()) > 0 and use.rows > 0
            assert {"from a held-out document", "of a held-out wording"} <= set(use.left_out)
        assert any(key not in last.values() for key in last), "there are conversations"

    def test_a_set_beside_unrelated_parts_loses_nothing(self, instruction_set, tokenizer, tmp_path, documents):
        chats = jsonl(tmp_path / "chats.jsonl", CHATS)
        _, _, uses = mix(tokenizer, {"name": instruction_set}, {"name": chats}, {"text": documents})
        assert not any(use.left_out for use in uses.values())

    def test_instructions_that_repeat_a_held_out_prompt_or_passage(self, instruction_set, tokenizer, tmp_path):
        held = [row for split in HELD for row in read_split(instruction_set, split)]
        (short,) = sorted(held, key=lambda row: len(row["prompt"][-1]["content"]))[:1]
        long = max(held, key=lambda row: len(row["prompt"][-1]["content"]))["prompt"][-1]["content"]
        passage = " ".join(long.split()[-60:])
        planted = [
            {"prompt": short["prompt"], "completion": [{"role": "assistant", "content": "An answer."}]},
            {
                "prompt": [{"role": "user", "content": f"Shorten: {passage.upper()}"}],
                "completion": [{"role": "assistant", "content": "Short."}],
            },
            {
                "prompt": [{"role": "user", "content": "Tell me something."}],
                "completion": [{"role": "assistant", "content": f"{prose(0)} {passage} {prose(1)}"}],
            },
        ]
        rows = [{key: row[key] for key in ("prompt", "completion")} for row in PROMPTS]
        place = jsonl(tmp_path / "mine.jsonl", [*rows, *planted])
        _, names, uses = mix(tokenizer, {"name": instruction_set}, {"name": place})
        assert uses[str(place)].left_out == {"with a held-out prompt": 1, "with a held-out passage": 2}
        assert {name for name in names if name.startswith(str(place))} == {f"{place}:{n}" for n in range(40)}

    def test_raw_text_with_a_held_out_passage(self, instruction_set, tokenizer, tmp_path, documents):
        held = [row for split in HELD for row in read_split(instruction_set, split)]
        long = max(held, key=lambda row: len(row["prompt"][-1]["content"]))["prompt"][-1]["content"]
        for n in range(0, 40, 4):
            (documents / f"{n:02}.txt").write_text(f"{prose(n)} {' '.join(long.split()[-60:])} {prose(n + 100)}")
        parts = {"name": instruction_set}, {"text": documents}
        _, names, uses = mix(tokenizer, *parts)
        assert uses[str(documents)].left_out == {"with a held-out passage": 10}
        used = {int(name.rpartition(":")[2]) for name in names if name.startswith(str(documents))}
        assert used == {n for n in range(40) if n % 4}

    def test_the_corpus_itself_as_raw_text(self, instruction_set, corpus, tokenizer):
        """No file of which anything is held out, and most of the others."""
        held = {
            source["sha256"] for split in HELD for row in read_split(instruction_set, split) for source in row["source"]
        }
        files = [file for file in sorted(corpus.iterdir()) if file.suffix == ".rst"]
        _, names, uses = mix(tokenizer, {"name": instruction_set}, {"text": corpus})
        used = {files[int(name.rpartition(":")[2])] for name in names if name.startswith(str(corpus))}
        unseen = {file for file in files if sha256_file(file) in held}
        assert unseen and not unseen & used and len(used) > len(files) / 2
        left_out = uses[str(corpus)].left_out
        assert left_out.pop("that are no plain text") == 6 and sum(left_out.values()) == len(files) - len(used)

    def test_nothing_left_is_an_error(self, instruction_set, tokenizer, tmp_path):
        held = [row for split in HELD for row in read_split(instruction_set, split)]
        place = jsonl(tmp_path / "held.jsonl", [{"prompt": r["prompt"], "completion": r["completion"]} for r in held])
        with pytest.raises(UserError, match=r"held.jsonl: holds nothing to train on; left out [\d,]+ with a held-out"):
            mix(tokenizer, {"name": instruction_set}, {"name": place})


class TestRun:
    @pytest.fixture(scope="class")
    def flags(self, instruction_set, tiny_model, tmp_path_factory):
        """A YAML with a mixture of every kind, and what else a short run needs."""
        folder = tmp_path_factory.mktemp("run")
        (folder / "text").mkdir()
        for n in range(30):
            (folder / "text" / f"{n}.txt").write_text(prose(n))
        parts = [
            {"text": str(folder / "text"), "share": 0.1},
            {"name": str(instruction_set), "weight": 0.5},
            {"name": str(jsonl(folder / "chats.jsonl", CHATS)), "weight": 2},
        ]
        values = yaml.safe_load((ROOT / "recipes" / "smollm2-135m" / "sft.yaml").read_text())
        del values["dataset_name"]
        values |= {"mixture": parts, "model_name_or_path": str(tiny_model), "dtype": "float32"}
        values |= {"max_steps": 2, "warmup_steps": 0, "eval_steps": 2, "save_steps": 2, "eval_items": 2}
        values |= {"max_length": 1024, "output_dir": str(folder / "adapter")}
        (folder / "mixture.yaml").write_text(yaml.safe_dump(values))
        return folder

    def test_it_trains_and_the_plan_was_right(self, flags, instruction_set):
        planned = cli("plan", str(flags / "mixture.yaml"), "--json")
        assert planned.returncode == 0, planned.stderr
        plan = json.loads(planned.stdout)
        done = recipe("sft.py", "--config", str(flags / "mixture.yaml"))
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("mixture: ")]
        assert len(lines) == 3 and "weight 0.5" in lines[0] and "raw text, share 0.1" in lines[2]
        lineage = json.loads((flags / "adapter" / "lineage.json").read_text())
        training = lineage["training"]
        assert (plan["run"]["tokens"], plan["run"]["steps"]) == (training["tokens"], training["steps"])
        assert "dataset_name" not in plan["config"] and plan["config"]["mixture"]["origin"] == "mixture.yaml"
        recorded = lineage["inputs"]["mixture"]
        assert [{k: v for k, v in part.items() if k != "lineage"} for part in recorded] == plan["parts"]
        first = next(part for part in recorded if part["name"] == str(instruction_set))
        assert first["fingerprint"] == read_manifest(instruction_set)["fingerprint"]
        assert first["amount"] == "weight 0.5" and first["lineage"]["stage"] == "build" and first["rows"] > 0
        assert training_sets([flags / "adapter"]) == [instruction_set]
        assert f"--suite {instruction_set} --output_dir" in done.stdout

    def test_a_changed_part_is_another_run(self, flags):
        assert "already trained" in recipe("sft.py", "--config", str(flags / "mixture.yaml")).stdout
        rows = (flags / "chats.jsonl").read_text()
        jsonl(flags / "chats.jsonl", CHATS[1:])
        done = recipe("sft.py", "--config", str(flags / "mixture.yaml"))
        (flags / "chats.jsonl").write_text(rows)
        assert_one_line_error(done, "another config", f"dataset_fingerprint of {flags / 'chats.jsonl'}: '")

    def test_the_command_line_takes_the_place_of_the_yaml(self, flags):
        """A mixture for the set of a YAML, and a set for the mixture of one."""
        from trl import ModelConfig, SFTConfig

        records = DataArguments, HeldOutArguments, SFTConfig, ModelConfig
        argv = ["--use_cpu", "true", "--mixture", "{name: a, weight: 2}", "{text: b}"]
        (data, *_), given = parse(records, ROOT / "recipes" / "smollm2-135m" / "sft.yaml", argv)
        assert data.mixture == given["mixture"] == [{"name": "a", "weight": 2}, {"text": "b"}]
        assert "dataset_name" not in given
        (data, *_), given = parse(records, flags / "mixture.yaml", ["--use_cpu", "true", "--dataset_name", "a"])
        assert (data.mixture, data.dataset_name) == (None, "a") and "mixture" not in given


GOOD = "{name: chats.jsonl}"
TABLE: list[tuple[str, str, list[str]]] = [
    ("[{name: chats.jsonl, wieght: 2}]", "", ["mixture, part 1: unknown key 'wieght'", "'weight'"]),
    ("[{name: chats.jsonl, weight: 0}]", "", ["part 1: key 'weight' must be above 0", "not 0"]),
    ("[{name: chats.jsonl, weight: -2}]", "", ["part 1: key 'weight' must be above 0", "not -2"]),
    ("[{name: chats.jsonl, weight: many}]", "", ["part 1: key 'weight' must be float, not 'many'"]),
    (f"[{GOOD}, {{text: texts, share: 1}}]", "", ["part 2: key 'share' must be above 0 and below 1, not 1"]),
    (f"[{GOOD}, {{text: texts, share: 0.0}}]", "", ["part 2: key 'share' must be above 0 and below 1, not 0.0"]),
    (f"[{GOOD}, {{weight: 2}}]", "", ["part 2: needs either name", "or text"]),
    ("[{name: chats.jsonl, text: texts}]", "", ["part 1: needs either name", "or text"]),
    ("[{name: chats.jsonl, weight: 1, share: 0.5}]", "", ["part 1: weight and share both"]),
    ("[{text: texts, share: 0.1}]", "", ["mixture: needs a part without share"]),
    (f"[{GOOD}, {{text: texts, share: 0.5}}, {{name: prompts.jsonl, share: 0.5}}]", "", ["the shares sum to 1"]),
    ("[]", "", ["mixture: has no parts"]),
    (f"[{GOOD}, {GOOD}]", "", ["part 2: chats.jsonl is a part already", "weight"]),
    (f"[{GOOD}]\ndataset_name: here", "", ["mixture: takes the place of dataset_name"]),
    ("chats.jsonl", "", ["wrong.yaml: key 'mixture' must be list", "['chats.jsonl']"]),
    ("", "--mixture chats.jsonl", ["--mixture", "'chats.jsonl' is no YAML mapping", "{key: value}"]),
    (
        "[{name: pairs.jsonl}]",
        "",
        ["pairs.jsonl: has the columns prompt, chosen, rejected", "completion, or in messages"],
    ),
    ("[{name: texts/a.jsonl}]", "", ["has the columns text;", "write `text: texts/a.jsonl`"]),
    (f"[{GOOD}, {{text: pairs.jsonl}}]", "", ["pairs.jsonl: has the columns prompt,", "raw text needs a column text"]),
    ("[{name: tools.jsonl}]", "", ["tools.jsonl: has a column 'tools'", "not trained on"]),
    ("[{name: shared.jsonl}]", "", ["shared.jsonl, row 1: a message has the role 'gpt'", "user, assistant"]),
    (
        "[{name: numbers.jsonl}]",
        "",
        ["numbers.jsonl, row 0: 'prompt' must be a list of messages", "both columns texts"],
    ),
    ("[{name: broken.jsonl}]", "", ["mixture: broken.jsonl: cannot be read ("]),
    ("[{name: page.html}]", "", ["mixture: page.html: cannot be read (its name must end in .json"]),
    ("[{name: a/b/nowhere}]", "", ["mixture: a/b/nowhere: no such file or folder"]),
    ("[{name: ./nowhere}]", "", ["mixture: ./nowhere: no such file or folder"]),
    (
        "[{name: nobody/nothing}]",
        "",
        ["mixture: nobody/nothing: no file or folder here, and the Hub gave none (", "network"],
    ),
    (f"[{GOOD}, {{text: nobody/nothing}}]", "", ["mixture: nobody/nothing: no file or folder here, and the Hub"]),
    ("[{name: chats.jsonl, split: trian}]", "", ["mixture: chats.jsonl: cannot be read (", "trian"]),
    ("[{name: SET, split: test_tasks}]", "", ["is an instruction set, of which `train` is used; leave split out"]),
    ("[{name: SET/test_tasks}]", "", ["test_tasks: belongs to an instruction set", "give name: "]),
    ("[{text: SET}]", "", ["belongs to an instruction set", "give name: "]),
    (f"[{GOOD}, {{text: code}}]", "", ["mixture: code: holds no raw text", ".txt", "column text"]),
    (f"[{GOOD}, {{text: latin}}]", "", ["mixture: latin: holds no raw text", "nothing is UTF-8"]),
    (f"[{GOOD}, {{text: mixed}}]", "", ["mixture: mixed: holds both plain text and JSON"]),
    (f"[{GOOD}, {{text: a.txt, split: train}}]", "", ["mixture: a.txt: plain text has no split"]),
    ("[{name: chats.jsonl, weight: 0.001}]", "", ["chats.jsonl: weight 0.001 takes none of its 40 rows"]),
    (f"[{GOOD}, {{text: a.txt, share: 0.9}}]", "", ["a.txt: its share is", "a smaller share"]),
    (f"[{GOOD}, {{text: a.txt}}]\nmax_length: null", "", ["max_length: raw text is cut", "set max_length: 1024"]),
    (f"[{GOOD}]\nmax_train_rows: 0", "", ["key 'max_train_rows' must be 1 or more"]),
    (f"[{GOOD}]\neval_strategy: steps\neval_steps: 5", "", ["there are no validation rows"]),
    (f"[{GOOD}]\ncompletion_only_loss: false", "", ["completion_only_loss: of this set's conversations"]),
]


@pytest.fixture(scope="module")
def sft():
    spec = importlib.util.spec_from_file_location("sft_recipe_of_mixtures", ROOT / "recipes" / "sft.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """Files that the table names."""
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("texts", "code", "mixed", "latin"):
        (folder / name).mkdir()
    (folder / "latin" / "a.txt").write_bytes("Übermut".encode("latin-1"))
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    jsonl(folder / "chats.jsonl", CHATS)
    jsonl(folder / "prompts.jsonl", PROMPTS)
    jsonl(folder / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    jsonl(folder / "texts" / "a.jsonl", [{"text": "a b c"}])
    jsonl(folder / "mixed" / "a.jsonl", [{"text": "a b c"}])
    jsonl(folder / "tools.jsonl", [{"messages": turn, "tools": "[]"}])
    shared = [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}]
    jsonl(folder / "shared.jsonl", [{"messages": turn}, {"messages": [turn[0], shared[1]]}])
    jsonl(folder / "numbers.jsonl", [{"prompt": 1, "completion": 2}])
    (folder / "broken.jsonl").write_text('{"messages": [\n')
    for name in ("a.txt", "page.html", "mixed/b.txt", "code/c.py"):
        (folder / name).write_text("one two three")
    return folder


def test_every_wrong_mixture_has_a_line_of_its_own():
    assert len({tuple(parts) for _, _, parts in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("mixture", "flags", "parts"), TABLE, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_mixture_is_one_line(
    mixture, flags, parts, sft, wrong, instruction_set, tiny_model, tmp_path, monkeypatch, capsys
):
    text = f"mixture: {mixture}\n" if mixture else "{}\n"
    (tmp_path / "wrong.yaml").write_text(text.replace("SET", str(instruction_set)))
    monkeypatch.chdir(wrong)
    given = ["--config", str(tmp_path / "wrong.yaml"), "--model_name_or_path", str(tiny_model)]
    arguments = ["recipes/sft.py", *given, "--output_dir", str(tmp_path / "out"), *flags.split()]
    assert_refused(sft.main, arguments, parts, monkeypatch, capsys)
    assert not (tmp_path / "out").exists()
