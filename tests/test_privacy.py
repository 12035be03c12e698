"""Secrets and personal data: what must be found, what must be left alone, and that masking is stable.

No key below is real: each is put together here from its prefix and random characters, so that no scanner takes this
file for a leak.
"""

from __future__ import annotations

import random
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec.core.privacy import CARD, EMAIL, KEY, PHONE, PLACEHOLDERS, Finding, find, mask

SHARED = Path(__file__).parents[2] / "shared" / "corpora"
BASE62 = string.ascii_letters + string.digits


def drawn(alphabet: str, length: int, seed: int = 7) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(alphabet) for _ in range(length))


EMAILS = [
    "jane.doe@example.com",
    "jane+list@mail.example.co.uk",
    "JANE@EXAMPLE.ORG",
    "o'neil@example.ie",
    "jürgen@müller.de",
    "иван@почта.рф",
    "jane@xn--mller-kva.de",
    "用户@例子.公司",
    '"jane doe"@example.com',
    "jane@@example.com",
    "jane＠example.com",
    "jane&#64;example.com",
    "jane%40example.com",
    "jane @ example.com",
    "jane at example.com",
    "jane AT example.com",
    "jane.doe at example dot com",
    "jane (at) example dot com",
    "jane [at] example [dot] com",
    "jane{at}example{dot}org",
    "jane (AT) example (DOT) co (DOT) uk",
    "jane<at>example.com",
    "jane_at_example.com",
    "<jane at host.org>",
    "<jane AT host.org>",
    "<jane.doe@host.org>",
    "jane at\nexample.com",
    "jane_doe at example.com",
]

PHONES = [
    "+1 650-253-0000",
    "+16502530000",
    "+44 20 7946 0958",
    "+49 (30) 901820",
    "+86 138 0013 8000",
    "0044 20 7946 0958",
    "(650) 253-0000",
    "650-253-0000",
    "650.253.0000",
    "1-800-356-9377",
    "020 7946 0958",
    "010-65529988",
    "138-0013-8000",
    "Tel: 555 1234",
    "phone 03 1234 5678",
    "电话：65529988",
    "手机13800138000",
]

CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "3782 822463 10005",
    "6011111111111117",
    "30569309025904",
    "3530111333300000",
    "6200000000000005",
]

PEM = "-----BEGIN {0}PRIVATE KEY-----\n{1}\n{1}\n-----END {0}PRIVATE KEY-----"
KEYS = [
    "AKIA" + drawn(string.ascii_uppercase + "234567", 16),
    "ghp_" + drawn(BASE62, 36),
    "github_pat_" + drawn(BASE62, 22) + "_" + drawn(BASE62, 59),
    "glpat-" + drawn(BASE62, 20),
    "xoxb-" + drawn(string.digits, 12) + "-" + drawn(string.digits, 12) + "-" + drawn(BASE62, 24),
    "https://hooks.slack.com/services/T" + drawn(BASE62, 8) + "/B" + drawn(BASE62, 8) + "/" + drawn(BASE62, 24),
    "sk_live_" + drawn(BASE62, 24),
    "AIza" + drawn(BASE62, 35),
    "sk-proj-" + drawn(BASE62 + "-_", 74),
    "sk-" + drawn(BASE62, 48),
    "sk-ant-api03-" + drawn(BASE62 + "-_", 93) + "AA",
    "hf_" + drawn(string.ascii_letters, 34),
    "gsk_" + drawn(BASE62, 52),
    "npm_" + drawn(BASE62, 36),
    "pypi-AgEIcHlwaS5vcmc" + drawn(BASE62 + "-_", 80),
    "dckr_pat_" + drawn(BASE62, 27),
    "SG." + drawn(BASE62, 22) + "." + drawn(BASE62, 43),
    "key-" + drawn("0123456789abcdef", 32),
    "AC" + drawn("0123456789abcdef", 32),
    "1234567890:" + drawn(BASE62, 35),
    "eyJ" + drawn(BASE62, 33) + ".eyJ" + drawn(BASE62, 60) + "." + drawn(BASE62 + "-_", 43),
    "M" + drawn(BASE62, 23) + "." + drawn(BASE62, 6) + "." + drawn(BASE62, 38),
    "AccountKey=" + drawn(BASE62 + "+/", 86) + "==",
    "hvs." + drawn(BASE62, 90),
    "AGE-SECRET-KEY-1" + drawn(string.ascii_uppercase + string.digits, 58),
    PEM.format("RSA ", drawn(BASE62 + "+/", 64)),
    PEM.format("", drawn(BASE62 + "+/", 64)),
    PEM.format("OPENSSH ", drawn(BASE62 + "+/", 64)),
    PEM.format("", drawn(BASE62 + "+/", 64)).replace("\n", "\\n"),
]

GIVEN_KEYS = [  # (text, the part that must vanish)
    ('password = "{}"', drawn(BASE62, 24)),
    ("API_KEY={}", drawn(BASE62, 32)),
    ("api-key: {}", drawn("0123456789abcdef", 32)),
    ('"client_secret": "{}",', drawn(BASE62, 40)),
    ("aws_secret_access_key = {}", drawn(BASE62 + "+/", 40)),
    ("Authorization: Bearer {}", drawn(BASE62, 40)),
    ("密钥：{}", drawn(BASE62, 40)),
    ("postgres://admin:{}@db.example.com:5432/app", "s3cr3tPa55"),
    ("https://x-access-token:{}@github.com/owner/name.git", "hunter2000"),
]

CLEAN = [
    "    @property\n    def name(self): ...\n\n    @name.setter\n    def name(self, value): ...",
    "@app.route('/')\n@pytest.fixture(scope='module')\n@functools.lru_cache",
    "c = a@b\nd = a @ b @ c.T\ny = W @ x.mean(axis=0)\nz = W@x.data[0]",
    "jane@laptop:~$ ls -l\nroot@localhost# exit\nuser@host",
    "git clone git@github.com:owner/name.git && pip install git+ssh://git@github.com/owner/name",
    "actions/checkout@v4, react@18.2.0, left-pad@next, memcpy@@GLIBC_2.14, icon@2x.png, getty@tty1.service",
    "https://mail.python.org/archives/list/python-dev@python.org/thread/XR7IF2OB3S7/",
    "The first @ sign, and @@ in a diff: @@ -87,7 +87,7 @@",
    "Look at setup.py and at main.rs, at README.md, at script.sh or at file.ext.",
    "Documentation is available at docs.python.org and hosted at docs.rust-lang.org; file a bug at bugs.python.org.",
    "The implementation can be found at https://example.org/page or at example.org/page.",
    "We look at this. At least at runtime, at all costs; meet at 10.30 at home.",
    "values_at_index.mean() and stop_at_end",
    "Fixed in 9fceb02d0ae598e95dc970b74767f19372d61af8, see d41d8cd98f00b204e9800998ecf8427e.",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "123e4567-e89b-12d3-a456-426614174000",
    "Version 3.11.7 of 2023-12-04, 2024-01-15T10:30:00+00:00, 20240115123000, 01/02/2003, 10:20:30",
    "ISBN 978-0-596-52068-7, ISBN 0-596-52068-9, RFC 5322, PEP 8, 10.1000/182, ORCID 0000-0002-1825-0097",
    "192.168.0.1-192.168.0.255, 10.0.0.0/8, 127.0.0.1:8080, 255.255.255.255, fe80::1ff:fe23:4567:890a",
    "2 ** 34 = 17179869184, 2**52 = 4503599627370496, 0xdeadbeefdeadbeef, 1.4142135623730951",
    "pi = 3.14159265358979323846264338327950288, e+1234567890, 1_000_000_000_000_000, -12345678901234",
    "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15, 00 01 02 03 04 05 06 07, 100 200 3000",
    "0x50 00 00 00 79 00 00 00 74 00 00 00",
    "4111111111111112 is no card number; 1234567812345678 neither.",
    "A file that begins with -----BEGIN PRIVATE KEY----- is a private key.",
    "-----BEGIN CERTIFICATE-----\n" + drawn(BASE62, 64) + "\n-----END CERTIFICATE-----",
    "token = tokenize.generate_tokens(readline), password = getpass.getpass('Password: ')",
    "secret_key = some_module_with_a_long_name_2_and_more",
    "https://user:password@example.com/ and https://user@host/path",
    "AKIA is a prefix, so are ghp_ and sk-; sk-fading-circle-animation is a class.",
    "x" * 500 + "=" * 500 + "-" * 500,
    "",
]


@pytest.mark.parametrize(
    ("kind", "secret"),
    [(kind, s) for kind, table in ((EMAIL, EMAILS), (PHONE, PHONES), (CARD, CARDS), (KEY, KEYS)) for s in table],
)
def test_found_whole(kind: str, secret: str) -> None:
    for before, after in [
        ("", ""),
        ("Write to: ", " today."),
        ("mail to ", ", or"),
        ("(", ")"),
        ("前文，", "，后文。"),
        ("\n", "\n\nNext"),
    ]:
        masked, findings = mask(before + secret + after)
        assert [finding.kind for finding in findings] == [kind], (before, findings)
        # A word that says what follows, and an URL's scheme, may stay.
        left = masked.removeprefix(before).removesuffix(after).replace(PLACEHOLDERS[kind], "")
        assert left in ("", "Tel: ", "phone ", "电话：", "手机", "https://"), masked


@pytest.mark.parametrize(("text", "secret"), GIVEN_KEYS)
def test_keys_known_by_their_name(text: str, secret: str) -> None:
    masked, findings = mask(text.format(secret))
    assert masked == text.format("<KEY>") or masked == text.replace(
        text[text.find("://") + 3 : text.find("@")], "<KEY>"
    )
    assert len(findings) == 1


@pytest.mark.parametrize("text", CLEAN)
def test_left_alone(text: str) -> None:
    assert mask(text) == (text, [])


def test_headers_of_mail_and_translations() -> None:
    text = "Author: Jane Doe <jane at host.org>,\n        John Roe <john@roe.example>\n# A. B. <ab@163.com>, 2025"
    masked, findings = mask(text)
    assert masked == "Author: Jane Doe <EMAIL>,\n        John Roe <EMAIL>\n# A. B. <EMAIL>, 2025"
    assert [text[f.start : f.end] for f in findings] == ["<jane at host.org>", "<john@roe.example>", "<ab@163.com>"]


@pytest.mark.parametrize("after", ["(Jane)", "[1]", "/x", ".", ",", ":", ">", "'s", "的"])
@pytest.mark.parametrize("address", ["jane@example.com", "jane.doe@example.de", "jane @ example.org"])
def test_what_follows_an_address(address: str, after: str) -> None:
    assert mask(f"Ask {address}{after}")[0] == f"Ask <EMAIL>{after}"


def test_findings_are_plain_values() -> None:
    assert find("a jane@example.com b") == [Finding(EMAIL, 2, 18)]
    with pytest.raises(AttributeError):
        Finding(EMAIL, 0, 1).kind = KEY  # type: ignore[misc]


# No "a", because "a page at example.com" is where a page is.
context = st.text(st.sampled_from("bcd xyz,.;()\n'\"BZ 中文，。"), max_size=60)


@given(before=context, after=context, secret=st.sampled_from(EMAILS + PHONES + CARDS + KEYS))
@settings(max_examples=300, deadline=None)
def test_planted_secrets_are_found(before: str, after: str, secret: str) -> None:
    masked, findings = mask(f"{before} {secret} {after}")
    assert findings
    assert secret not in masked


text_near_findings = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [*EMAILS, *PHONES, *CARDS, *KEYS, *PLACEHOLDERS.values(), "@", " at ", ".com", "password=", "://", ":", "+"]
        ),
    ),
    max_size=12,
).map("".join)


@given(text_near_findings)
@settings(max_examples=500, deadline=None)
def test_masking_is_idempotent_and_findings_are_sorted(text: str) -> None:
    masked, findings = mask(text)
    assert mask(masked) == (masked, [])
    assert mask(text) == (masked, findings)
    ends = [0]
    for finding in findings:
        assert ends[-1] <= finding.start < finding.end <= len(text)
        ends.append(finding.end)


@given(st.text())
@settings(max_examples=500, deadline=None)
def test_any_text_is_accepted(text: str) -> None:
    masked, _ = mask(text)
    assert mask(masked)[0] == masked


def test_lone_surrogates_are_accepted() -> None:
    assert mask("\ud800 jane@example.com \udfff")[0] == "\ud800 <EMAIL> \udfff"


def test_hostile_texts_take_linear_time() -> None:
    for piece in ("a@", "a.", " at a", "1 ", "+1", "(at)", "x:", "://a:", "-----BEGIN PRIVATE KEY-----\n", "a_at_b."):
        mask(piece * 20_000)


def test_threads_agree() -> None:
    texts = [f"{a} {b}" for a in EMAILS + PHONES for b in CARDS + KEYS[:4]]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(mask, texts)) == [mask(text) for text in texts]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared corpora beside the project")
@pytest.mark.parametrize(("corpus", "pattern"), [("peps", "*.rst"), ("python_docs_zh", "*.po")])
def test_no_address_survives_in_real_headers(corpus: str, pattern: str) -> None:
    survivors = []
    for path in sorted((SHARED / corpus).rglob(pattern)):
        masked, _ = mask(path.read_text(encoding="utf-8"))
        for line in masked.split("\n"):
            head = line.split(":")[0].strip(' "#')
            if head in ("Author", "Sponsor", "PEP-Delegate", "BDFL-Delegate", "Last-Translator") and "@" in line:
                survivors.append(f"{path.name}: {line}")
            if "<" in line and any(
                f" at {host}>" in line or f"@{host}" in line for host in ("gmail.com", "python.org>")
            ):
                survivors.append(f"{path.name}: {line}")
    assert not survivors
