"""Each constraint tells a response that meets it from one that does not, in English and in Chinese."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec.core.checks import CHECKS, satisfied, satisfied_loose, validate
from instructrec.core.errors import UserError

LONG = "The ferry leaves the old harbour at noon and reaches the island before the shops close for the day."
GERMAN = "Die Fähre verlässt den alten Hafen um zwölf Uhr und erreicht die Insel, bevor die Läden schließen."
CHINESE = "渡轮中午离开老港口。傍晚之前就能到达小岛，商店那时还没有关门。"

# Name, arguments, responses that meet the constraint, responses that do not.
CASES: list[tuple[str, dict, list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["Oak", "lime"]}, ["Limes grow by the oak."], ["Only an oak."]),
    ("keywords:existence", {"keywords": ["C++"]}, ["I know c++ well."], ["I know C."]),
    ("keywords:existence", {"keywords": ["港口"]}, [CHINESE], ["渡轮已经离开。"]),
    (
        "keywords:frequency",
        {"keyword": "rain", "frequency": 2, "relation": "at least"},
        ["Rain, rain.", "A train in the rain."],
        ["rain"],
    ),
    ("keywords:frequency", {"keyword": "雨", "frequency": 2, "relation": "less than"}, ["下雨了。"], ["雨又下雨。"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["cat", "C++"]},
        ["Concatenate the lists.", "Write C."],
        ["A CAT!", "Write C++."],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["苹果"]}, ["我爱梨。"], ["我爱苹果派。", "买iPhone苹果手机"]),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 3, "let_relation": "less than"},
        ["See."],
        ["Three E's: eee"],
    ),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, ["# #"], ["#"]),
    ("language:response_language", {"language": "de"}, [GERMAN, "12 + 3"], [LONG, CHINESE]),
    ("language:response_language", {"language": "zh-cn"}, [CHINESE], [LONG]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One is here. Two is here! Is three?"],
        ["Dr. Smith met Mrs. Jones at 3.5 km.", "- no\n- full\n- stops"],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, [CHINESE], ["渡轮离开。"]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na *** b\n***"],
        ["a\n\nb", "a *** *** b", "***"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        ["It's a dog."],
        ["It is a", "well-known dog"],
    ),
    ("length_constraints:number_words", {"num_words": 10, "relation": "less than"}, ["渡轮离开港口。"], [CHINESE]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["First.\n\n'then, it ended.", "a\n\nTHEN"],
        ["Then.\n\nSecond.", "a\n\nthen\n\nc", "a\n\nThence it came.", "a\n\n\n\nthen", "then"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "渡轮"},
        [CHINESE],
        ["一条渡轮。"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[name], 住址：[address]"], ["[name]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP. S. Call me."], ["Bye. PS Call me."]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye.\np.p.s. Call"], ["Bye.\nP.S. Call"]),
    ("detectable_content:postscript", {"postscript_marker": "附言："}, ["再见。\n附言：来电"], ["再见。"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- 一\n  * 二", "**Title**\n* a\n- b"],
        ["* a", "* a\n* b\n- c"],
    ),
    ("detectable_format:constrained_response", {}, ["Well: My answer is maybe."], ["Maybe."]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**一** *二*"],
        ["*a* and b", "** and **", "*a\nb* *c"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb"],
        ["Section 1\nSection 2", "SECTION one, SECTION 2"],
    ),
    ("detectable_format:multiple_sections", {"section_spliter": "部分", "num_sections": 1}, ["部分1 甲"], ["部分甲"]),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1]}', '```json\n{"甲": 1}\n```', "```\n[]\n```"],
        ["{'a': 1}", 'Here: {"a": 1}', "[" * 100_000],
    ),
    ("detectable_format:title", {}, ["<<Sea Song>>\nWaves", "<<海>>"], ["<Sea>", "<<\n>>", "<< >>"]),
    ("combination:two_responses", {}, ["a\n******\nb", "******a******b******"], ["a", "a******a", "a******b******c"]),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Name a tree. "},
        [" name a tree. Oak."],
        ["Oak. Name a tree.", "Name a"],
    ),
    ("startend:end_checker", {"end_phrase": "Is that all?"}, ['"Yes. is that all?" '], ["Is that all? Yes."]),
    ("startend:end_checker", {"end_phrase": "完毕。"}, ["说完了，完毕。"], ["完毕。再见"]),
    ("startend:quotation", {}, [' "All of it." '], ['"', '"Some" of it', "'All'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["I SAID no", "Stop-it, NOW OR-ELSE!", "DON'T"],
        ["I said No.", "NOW"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 1, "capital_relation": "less than"},
        ["没有大写"],
        ["用 API"],
    ),
    ("change_case:english_capital", {}, [LONG.upper()], [LONG, GERMAN.upper().replace("SS", "ß"), CHINESE]),
    ("change_case:english_lowercase", {}, [LONG.lower()], [LONG, GERMAN.lower(), CHINESE]),
    ("punctuation:no_comma", {}, ["No commas; none."], ["One, two", "一，二", "一、二"]),
]


def written(name: str, args: dict) -> str:
    return json.dumps([{"name": name, "args": args}])


@pytest.mark.parametrize(("name", "args", "good", "bad"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])
def test_a_constraint_is_met_or_not(name, args, good, bad):
    validate(written(name, args), "here")
    assert {text: satisfied(written(name, args), text) for text in good} == {text: [True] for text in good}
    assert {text: satisfied(written(name, args), text) for text in bad} == {text: [False] for text in bad}


def test_every_check_has_a_case_and_ifeval_has_25():
    assert {case[0] for case in CASES} == set(CHECKS) and len(CHECKS) >= 25


def test_a_blank_response_meets_nothing():
    checks = json.dumps([{"name": name, "args": args} for name, args, _, _ in CASES])
    assert satisfied(checks, " \n") == satisfied_loose(checks, "") == [False] * len(CASES)


def test_several_checks_are_told_in_their_order():
    checks = json.dumps([{"name": "punctuation:no_comma", "args": {}}, {"name": "startend:quotation", "args": {}}])
    assert satisfied(checks, '"a, b"') == [False, True]
    assert satisfied(checks, "a b") == [True, False]


def test_the_loose_verdict_forgives_a_frame_and_markdown():
    title, quoted = written("detectable_format:title", {}), written("startend:quotation", {})
    assert satisfied_loose(quoted, 'Sure, here it is:\n"Yes."\nAnything else?') == [True]
    assert satisfied(quoted, 'Sure, here it is:\n"Yes."') == [False]
    assert satisfied_loose(quoted, '**"Yes."**') == [True]
    assert satisfied_loose(title, "Sure\n<Sea>\nBye") == [False]
    # each of two checks may be met by another part of the response
    both = json.dumps(
        [{"name": "startend:quotation", "args": {}}, {"name": "keywords:existence", "args": {"keywords": ["Sure"]}}]
    )
    assert satisfied_loose(both, 'Sure:\n"Yes."') == [True, True]


@given(st.text(alphabet='ab*"\n ,.', max_size=30))
def test_loose_is_never_stricter_than_strict(response):
    checks = json.dumps([{"name": name, "args": args} for name, args, _, _ in CASES if "language" not in name])
    pairs = zip(satisfied(checks, response), satisfied_loose(checks, response), strict=True)
    assert all(loose or not strict for strict, loose in pairs)


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ("[", "x.jsonl:3: 'checks' is not JSON"),
        ("{}", "x.jsonl:3: 'checks' must be a JSON list"),
        ("[]", "list of one check or more"),
        ('["punctuation:no_comma"]', "a check must be an object with 'name'"),
        ('[{"name": "punctuation:no_comma"}]', "a check must be an object with 'name'"),
        (
            written("punctuation:no_coma", {}),
            "unknown check 'punctuation:no_coma'. Did you mean 'punctuation:no_comma'?",
        ),
        (written("keywords:existence", {"keyword": ["a"]}), "has no argument 'keyword'. Did you mean 'keywords'?"),
        (written("keywords:existence", {}), "needs the argument 'keywords', a list of texts"),
        (written("keywords:existence", {"keywords": "a"}), "'keywords' must be a list of texts"),
        (written("keywords:existence", {"keywords": []}), "'keywords' must be a list of texts"),
        (written("keywords:existence", {"keywords": ["a", 1]}), "'keywords' must be a list of texts"),
        (written("detectable_format:number_bullet_lists", {"num_bullets": True}), "must be a whole number"),
        (written("detectable_format:number_bullet_lists", {"num_bullets": -1}), "must be a whole number"),
        (
            written("length_constraints:number_words", {"num_words": 5, "relation": "at most"}),
            "'relation' must be 'at least' or 'less than'",
        ),
        (written("startend:end_checker", {"end_phrase": " "}), "'end_phrase' must be a text that is not empty"),
    ],
)
def test_malformed_checks_are_named(checks, message):
    with pytest.raises(UserError) as raised:
        validate(checks, "x.jsonl:3")
    assert message in str(raised.value) and str(raised.value).startswith("x.jsonl:3: ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.sampled_from(sorted(CHECKS)), st.data())
def test_any_arguments_are_refused_or_give_a_verdict(name, data):
    known = {key: args[key] for case, args, _, _ in CASES if case == name for key in args}
    args = {key: data.draw(st.just(value) | JSON) for key, value in known.items()}
    try:
        verdicts = satisfied(written(name, args), data.draw(st.text(max_size=40)))
    except UserError:
        return
    assert len(verdicts) == 1 and isinstance(verdicts[0], bool)
