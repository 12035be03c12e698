"""What people look at after an evaluation: tables, pictures and the page, from scores and answers made up here."""

import html
import json
import math
import random
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_inspection import CHROMIUM, HOSTILE

from instructrec.core.checks import satisfied
from instructrec.evaluation import pictures
from instructrec.evaluation.pictures import MOST_CATEGORIES, draw, headline, short_names
from instructrec.evaluation.report import (
    ladder_table,
    markdown,
    overlap_note,
    payload,
    show,
    suite_table,
    token_lengths,
    write_report,
)
from instructrec.evaluation.results import LABELS
from instructrec.evaluation.suites import RUNGS

MODELS = ["smollm2-135m-q4", "outputs/quickstart/adapter", "outputs/dpo/adapter"]
SETTINGS = {"max_new_tokens": None, "shots": 0, "suite": ["outputs/quickstart/set"]}
FAMILIES = ("title", "keywords", "summary_sentence", "翻译", "function_to_docstring")
TEXTS = (
    "The harbour office keeps a list of boats.",
    "港口办公室有一份船只名单。",
    "def gap(a, b): return b - a",
    "🦊 & <b>",
)
CHECKS = json.dumps(
    [
        {"name": "keywords:existence", "args": {"keywords": ["boats"]}},
        {"name": "length_constraints:number_words", "args": {"num_words": 4, "relation": "less than"}},
    ]
)


def token_ids(text: str) -> list[int]:
    """Byte-level tokens, as many tokenizers fall back to."""
    return list(text.encode())


def token_text(token: int) -> str:
    return bytes([token]).decode("utf-8", "replace")


def estimate(values: list[float], templates: list[str | None] | None = None) -> dict:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return {"value": mean, "ci95": [None, None]}
    half = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    found: dict = {"value": mean, "ci95": [mean - half, mean + half]}
    if templates and len(set(templates)) > 1:
        found["templates"] = {"n": len(set(templates)), "median": mean + 0.02, "quartiles": [mean - 0.1, mean + 0.1]}
    return found


def metrics_of(lines: list[dict], models: list[str]) -> dict:
    """The metrics of some lines of predictions."""
    metrics = {}
    for name in LABELS:
        having = [line for line in lines if name in line["scores"]]
        if not having:
            continue
        series = {m: [line["scores"][name] for line in having if line["model"] == m] for m in models}
        templates = [line["template"] for line in having if line["model"] == models[0]]
        choosing = name in ("accuracy", "calibrated_accuracy")
        metrics[name] = {
            "n": len(series[models[0]]),
            "majority": 0.6 if choosing or name == "exact_match" else None,
            "chance": 0.5 if choosing else None,
            "values": {m: estimate(values, templates) for m, values in series.items()},
            "deltas": {
                m: estimate([a - b for a, b in zip(series[m], series[models[0]], strict=True)]) | {"p": 0.01}
                for m in models[1:]
            },
        }
    return metrics


def answer(rng: random.Random, number: int, skill: float, choices: list[str] | None, checks: str | None) -> dict:
    nll = max(0.05, rng.gauss(3.2 - skill, 1.2))
    output = TEXTS[(number + (rng.random() < 0.5)) % len(TEXTS)]
    scores = {"gold_nll": nll, "rouge_l": min(1.0, max(0.0, rng.gauss(0.2 + skill / 5, 0.15)))}
    logprobs = None
    if choices:
        logprobs = [rng.gauss(-1, 0.5) for _ in choices]
        scores |= {"exact_match": 0.0, "accuracy": float(logprobs[0] == max(logprobs)), "option_mass": 0.3}
        scores["calibrated_accuracy"] = float(rng.random() < 0.5 + skill / 4)
    elif checks:
        met = satisfied(checks, output)
        scores = {"constraints": sum(met) / 2, "constraints_loose": sum(met) / 2, "all_constraints": float(all(met))}
        scores["all_constraints_loose"] = scores["all_constraints"]
    else:
        scores |= {"chrf": 0.3, "bleu": 0.1, "exact_match": float(rng.random() < skill / 3)}
    ids = token_ids(output)
    found = {"output": output, "output_ids": ids, "stopped": rng.random() < 0.7, "choice_logprobs": logprobs}
    return found | {"gold_nll": scores.get("gold_nll"), "scores": scores | {"stop_rate": float(found["stopped"])}}


def evaluation(models: list[str], n: int = 30, tasks: int = 27) -> tuple[dict, list[dict]]:
    """The rungs, a suite of choices and constraints in `tasks` categories, and raw text, as an evaluation has them."""
    rng = random.Random(0)
    predictions = []
    for depth, suite in enumerate((*RUNGS, "bbh | <i>", "raw")):
        for number in range(n if depth < 4 else 3 * tasks if depth == 4 else 3):
            external = depth == 4
            category = f"task_{number % tasks:02}" if external else FAMILIES[number % len(FAMILIES)]
            choices = ["yes", "no [/b]"] if external and number % 3 else None
            checks = CHECKS if external and not number % 3 else None
            prompt = (
                f"<|im_start|>user\nNumber {number}: {TEXTS[number % 4]}\n{HOSTILE if number == 3 else ''}<|im_end|>"
            )
            for place, model in enumerate(models):
                line = {
                    "suite": suite,
                    "id": f"{suite}-{number}",
                    "category": "raw" if depth == 5 else category,
                    "template": f"{category}.en.{number % 4:02}" if depth < 4 else None,
                    "model": model,
                    "prompt": prompt if depth < 5 else "",
                    "prompt_ids": token_ids(prompt) if depth < 5 else [],
                    "targets": choices[:1] if choices else [] if checks else [TEXTS[number % 4]],
                    "choices": choices,
                    "checks": checks,
                    "overlap": "ngram" if external and number % 10 == 0 else None,
                }
                line |= answer(rng, number, place * (1.0 - depth / 6), choices, checks)
                if depth == 5:
                    line |= {"output": None, "output_ids": [], "stopped": False, "scores": {"bits_per_byte": 1.1}}
                predictions.append(line)
    suites = {}
    for suite in dict.fromkeys(line["suite"] for line in predictions):
        lines = [line for line in predictions if line["suite"] == suite]
        for name, kept in ((suite, lines), (f"{suite}, clean", [line for line in lines if not line["overlap"]])):
            if name != suite and len(kept) == len(lines):
                continue
            members = {
                c: [li for li in kept if li["category"] == c] for c in dict.fromkeys(li["category"] for li in kept)
            }
            suites[name] = {
                "n": len(kept) // len(models),
                "metrics": metrics_of(kept, models),
                "categories": {
                    c: {"n": len(own) // len(models), "metrics": metrics_of(own, models)} for c, own in members.items()
                }
                if len(members) > 1
                else {},
                "overlap": {"ngram": (len(lines) - len(kept)) // len(models)} if name != suite else None,
            }
        if f"{suite}, clean" in suites:
            suites[suite]["overlap"], suites[f"{suite}, clean"]["overlap"] = suites[f"{suite}, clean"]["overlap"], {}
    return {"models": models, "suites": suites}, predictions


@pytest.fixture(scope="module")
def evaluated():
    return evaluation(MODELS)


@pytest.fixture(scope="module")
def report(evaluated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(*evaluated, SETTINGS, folder, token_text)
    return folder


def test_the_screen_has_every_score_with_its_n_interval_and_baselines(evaluated, capsys):
    scores, _ = evaluated
    show(scores)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 150
    text = "\n".join(lines)
    for suite, entry in scores["suites"].items():
        assert f"{suite}: {entry['n']} items" in text
        for name, metric in entry["metrics"].items():
            for model in MODELS:
                low, high = metric["values"][model]["ci95"]
                assert f"{metric['values'][model]['value']:.3f} [{low:.3f}, {high:.3f}]" in text
            assert any(line.lstrip().startswith(LABELS[name]) and f" {metric['n']} " in line for line in lines)
    assert "9 of 81 items overlap with the training data (ngram 9); 72 are clean." in text
    assert re.search(r"choice accuracy ↑ +54 +0\.600 +0\.500", text)


def test_one_adapter_fits_a_narrower_screen_and_names_stay_text(capsys):
    scores, _ = evaluation(["base", "runs/[bold]a[/i]"])
    show(scores)
    text = capsys.readouterr().out
    # A slash parts a path, here within brackets.
    assert short_names(scores["models"])["runs/[bold]a[/i]"] == "i]" and "→ i]" in text
    suites = text.split("\n", 1)[1].split("generalization ladder")[0]
    assert max(len(line.rstrip()) for line in suites.splitlines()) <= 120


def test_a_model_alone_has_no_differences(tmp_path, capsys):
    scores, predictions = evaluation(["base"])
    write_report(scores, predictions, SETTINGS, tmp_path, token_text)
    show(scores)
    assert "difference " not in capsys.readouterr().out.replace("differences", "")
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["ladder.png", "suites.png"]


def test_differences_are_judged_by_interval_and_direction():
    scores, _ = evaluation(["base", "tuned"])
    metrics = scores["suites"]["train"]["metrics"]
    metrics["gold_nll"]["deltas"]["tuned"] = {"value": -1.0, "ci95": [-2.0, -0.5]}
    metrics["rouge_l"]["deltas"]["tuned"] = {"value": -0.1, "ci95": [-0.2, -0.05]}
    metrics["stop_rate"]["deltas"]["tuned"] = {"value": -0.1, "ci95": [-0.2, 0.05]}
    metrics["exact_match"]["deltas"]["tuned"] = {"value": 0.0, "ci95": [None, None]}
    verdicts = {row.cells[0]: row.verdict for row in suite_table(scores["suites"]["train"], scores["models"]).rows}
    assert [verdicts[LABELS[name]] for name in ("gold_nll", "rouge_l", "stop_rate", "exact_match")] == [
        "better",
        "worse",
        "",
        "",
    ]


def test_the_ladder_has_means_and_templates_side_by_side(evaluated):
    scores, _ = evaluated
    table = ladder_table(scores)
    assert table.header[2:] == ["train sample", "unseen documents", "unseen templates", "unseen task groups"]
    assert len(table.rows) == len(MODELS) * len(headline(scores["suites"][rung] for rung in RUNGS))
    nll = scores["suites"]["test_tasks"]["metrics"]["gold_nll"]["values"][MODELS[1]]
    mean, templates = table.rows[1].cells[-1].split("\n")
    assert mean.startswith(f"{nll['value']:.3f} [") and mean.endswith(" 30")
    assert templates.startswith(f"{nll['templates']['median']:.3f} (") and templates.endswith(" 20")
    assert ladder_table({"models": MODELS, "suites": {"train": scores["suites"]["train"]}}) is None


def test_markdown_tables_keep_their_shape(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(tables) == 8  # six suites, one of them clean as well, and the ladder
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert r"## bbh \| &lt;i>: 81 items" in text and "twice as many tokens as 95 % of the gold" in text
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (report / link).exists()


def test_the_title_and_the_limit_are_those_of_the_run(evaluated):
    text = markdown(evaluated[0], {"max_new_tokens": 32, "shots": 3}, {})
    assert text.startswith("# 3-shot report") and "32 tokens at most" in text


def test_overlap_is_said_where_known(evaluated):
    suite = evaluated[0]["suites"]["train"]
    assert overlap_note(suite) == "" and overlap_note(suite | {"overlap": {}}).startswith("None of 30")


def test_pictures_are_drawn_anew(evaluated, tmp_path):
    scores, _ = evaluated
    assert list(draw(scores, tmp_path)) == ["ladder.png", "families.png", "suites.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert list(draw({"models": MODELS, "suites": {"raw": scores["suites"]["raw"]}}, tmp_path)) == ["suites.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["suites.png"]


def test_many_categories_are_cut_in_the_middle():
    scores, _ = evaluation(MODELS, tasks=119)
    suite = scores["suites"]["bbh | <i>"]
    (axes,) = pictures._families({"models": MODELS, "suites": {"bbh": suite}}).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    deltas = {
        f"{name} ({category['metrics']['gold_nll']['n']})": sum(
            delta["value"] for delta in category["metrics"]["gold_nll"]["deltas"].values()
        )
        for name, category in suite["categories"].items()
        if "gold_nll" in category["metrics"]
    }
    expected = sorted(deltas, key=deltas.get)
    assert labels == expected[:20] + expected[-20:] and len(labels) == MOST_CATEGORIES
    assert f"not shown: the {len(deltas) - 40} categories in between" in axes.get_xlabel()


def test_names_are_as_short_as_they_can_be():
    assert list(short_names(MODELS).values()) == [MODELS[0], "quickstart/adapter", "dpo/adapter"]
    assert list(short_names(["base", "x/a/", "x/b"]).values()) == ["base", "a", "b"]
    assert short_names(["a", "a/"]) == {"a": "a", "a/": "a/"}


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), min_size=1), max_size=9))
def test_whole_tokens_have_their_own_lengths(pieces):
    assert token_lengths("".join(pieces), pieces) == [units(piece) for piece in pieces]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(1, 3))
def test_tokens_that_cut_characters_cover_the_text(text, size):
    data = text.encode()
    pieces = [data[i : i + size].decode("utf-8", "replace") for i in range(0, len(data), size)]
    lengths = token_lengths(text, pieces)
    assert len(lengths) == len(pieces) and sum(lengths) == units(text) and min(lengths, default=0) >= 0


def test_tokens_beside_the_text_are_none_of_it():
    assert token_lengths("Ja, 船 da", ["\n", "Ja", ",", " \ufffd", "\ufffd", " da", "</s>"]) == [0, 2, 1, 0, 2, 3, 0]
    assert token_lengths("a b", ["a", "b"]) == [1, 2]  # the tokenizer dropped the blank
    assert token_lengths("", []) == []


def page_data(text: str) -> dict:
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    assert len(scripts) == 2
    return json.loads(scripts[0])


def test_the_page_holds_every_answer_and_loads_nothing(report, evaluated):
    text = (report / "report.html").read_text(encoding="utf-8")
    data = page_data(text)
    _, predictions = evaluated
    assert sum(len(item["answers"]) for item in data["items"]) == len(predictions)
    by_key = {(line["suite"], line["id"], line["model"]): line for line in predictions}
    for item in data["items"]:
        for model, given_answer in zip(MODELS, item["answers"], strict=True):
            line = by_key[item["suite"], item["id"], model]
            assert item["prompt"] == line["prompt"] and given_answer.get("output") == line["output"]
            assert sum(item["tokens"]) == units(line["prompt"]) and len(item["tokens"]) == len(line["prompt_ids"])
            shown = dict(zip(data["metrics"], given_answer["scores"], strict=True))
            assert {k: v for k, v in shown.items() if v is not None} == pytest.approx(line["scores"], abs=1e-4)
            if line["checks"]:
                assert sum(given_answer["met"]) / 2 == line["scores"]["constraints"]
    assert any(HOSTILE in item["prompt"] for item in data["items"])
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert set(re.findall(r"""(?:src|href)=["']?([^,>"']*)""", outside)) == {"data:image/png;base64"}
    assert not re.search(r"https?://|@import|url\(|fetch\(|innerHTML|eval\(|<i>", text)
    assert "default-src 'none'" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_filters_and_sorts_the_items(report, evaluated, tmp_path):
    script = """
      const said = {}, shown = () => document.querySelectorAll("#items details").length;
      const choose = (label, value) => {
        const select = document.querySelector(`[aria-label="${label}"]`);
        select.value = value;
        select.dispatchEvent(new Event("change"));
      };
      addEventListener("load", () => {
        choose("suite", "bbh | <i>");
        said.suite = total.textContent;
        for (const details of document.querySelectorAll("#items details")) details.open = true;
        setTimeout(() => {
          said.texts = [...document.querySelectorAll("#items details pre")].slice(0, 2).map(pre => pre.textContent);
          said.cards = document.querySelectorAll("#items .answers > div").length;
          said.picked = document.querySelectorAll("#items td.picked").length;
          said.images = document.querySelectorAll("img:not([src^='data:'])").length;
          choose("category", "task_03");
          said.category = shown();
          choose("suite", "train");
          choose("result", "mixed");
          said.mixed = shown();
          choose("result", "");
          choose("order", String(data.metrics.indexOf("gold_nll")));
          said.first = document.querySelector("#items summary").textContent;
          search.value = "alert(1)";
          search.dispatchEvent(new Event("input"));
          said.found = shown();
          said.wide = document.documentElement.scrollWidth - innerWidth;
          document.title = JSON.stringify(said);
        }, 100);
      });"""
    page = tmp_path / "probe.html"
    page.write_text((report / "report.html").read_text(encoding="utf-8") + f"<script>{script}</script>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=500,900"]
    flags += ["--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [CHROMIUM, *flags, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    said = json.loads(html.unescape(re.search(r"<title>(\{.*?\})</title>", dom, re.S)[1]))
    _, predictions = evaluated
    train = [line for line in predictions if line["suite"] == "train"]
    items = {line["id"]: [own for own in train if own["id"] == line["id"]] for line in train}
    spreads = {i: [own["scores"]["gold_nll"] for own in lines] for i, lines in items.items()}
    widest = max(spreads, key=lambda i: max(spreads[i]) - min(spreads[i]))
    assert said["suite"].startswith("81 of ") and said["category"] == 3
    assert said["texts"][0].startswith("<|im_start|>user↵\nNumber 0: The harbour")
    assert said["cards"] == 81 * 3 and said["picked"] == 54 * 3 and said["images"] == 0
    assert said["mixed"] == sum(len({own["scores"]["exact_match"] for own in lines}) > 1 for lines in items.values())
    assert re.search(rf"\D{widest.removeprefix('train-')}: ", said["first"])
    assert said["found"] == 1 and said["wide"] <= 0


def test_large_evaluations_stay_openable(evaluated):
    scores, predictions = evaluated
    lines = [line | {"id": f"{line['id']}-{copy}"} for copy in range(20) for line in predictions]
    size = len(json.dumps(payload(scores, lines, token_text), ensure_ascii=False, separators=(",", ":")))
    assert size / (len(lines) / len(MODELS)) < 2000  # characters per item
