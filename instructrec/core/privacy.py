"""Secrets and personal data in text: e-mail addresses, phone numbers, payment cards, and keys of known shapes.

Cheap scans find what could start a finding (an `@`, an ` at `, a run of digits, a long unbroken run); only there are
the exact rules asked. Phone numbers are judged by `phonenumbers` (Google's libphonenumber). Keys are judged by the
shapes that their issuers document: every one has a fixed prefix or stands after a word such as `token =`, so a commit
hash, a UUID or a checksum is never taken for one. Everything here is a pure function of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import phonenumbers

EMAIL, PHONE, CARD, KEY = "email", "phone", "card", "key"
PLACEHOLDERS = {EMAIL: "<EMAIL>", PHONE: "<PHONE>", CARD: "<CARD>", KEY: "<KEY>"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One secret: its kind (a key of `PLACEHOLDERS`) and its half-open range of characters in the text."""

    kind: str
    start: int
    end: int


# --- scans: one byte per character, on which `in` and `find` run at the speed of memory ------------------------------

_UPPER, _LOWER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"
# One case, one kind of bracket, one kind of space.
_PLAIN = bytes.maketrans(_UPPER + b"[{<]}>\t\n\r", _LOWER + b"((()))   ")
_UNBROKEN = bytes(120 if chr(i).isascii() and (chr(i).isalnum() or chr(i) in "_-+/") else 32 for i in range(256))
_RUN = 20
"""Characters without a break that every key has somewhere; a text without such a run holds none."""


def _long_runs(characters: bytes) -> Iterator[tuple[int, int]]:
    """Ranges of at least `_RUN` letters, digits and `_-+/`."""
    runs = characters.translate(_UNBROKEN)
    start = runs.find(b"x" * _RUN)
    while start >= 0:
        end = runs.find(b" ", start)
        end = len(runs) if end < 0 else end
        yield start, end
        start = runs.find(b"x" * _RUN, end)


# --- e-mail -----------------------------------------------------------------------------------------------------------

# Letters of alphabets written with spaces. A Chinese character beside an address is a word of the sentence, not of it.
_LETTER = "A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u04ff"
_LOCAL_END = re.compile(rf"[{_LETTER}._%+'’-]{{1,64}}\Z")
_WORD_END = re.compile(r"\w{1,64}\Z")
_QUOTED_END = re.compile(r'"[^"\n]{1,62}"\Z')
_LABEL = rf"[{_LETTER}](?:[{_LETTER}_-]{{0,61}}[{_LETTER}])?"
_TOP = rf"(?:xn--[A-Za-z0-9-]{{2,}}|(?![0-9])[{_LETTER}]{{2,24}})(?![{_LETTER}]|[_-][{_LETTER}])"
_HOST = re.compile(rf"(?:{_LABEL}\.)+{_TOP}")
_ANY_HOST = re.compile(r"(?:[^\W_]{1,63}\.)+[^\W\d_]{2,8}")
_AT_SIGN = re.compile(r"[@＠]{1,2}|&#64;|&#x40;|&commat;|%40")
# Hosts of the shape "name.suffix" that are files, units and pictures at double resolution.
_NO_HOST = re.compile(
    r"\d+x\.|.*\.(?:service|socket|timer|target|mount|slice|scope|swap|device|png|jpe?g|gif|svg|webp|utf8?)\Z"
)

_DOT = r"(?:\.|\s*[\[({<]\s*(?:dot|\.)\s*[\])}>]\s*|\s+dot\s+|_dot_)"
_SPOKEN_HOST = rf"(?P<host>{_LABEL}(?:{_DOT}{_LABEL}){{0,6}}?{_DOT}{_TOP}(?:{_DOT}{_TOP})*)"
_SPOKEN = re.compile(
    rf"(?i:(?P<bracket>\s*[\[({{<]\s*(?:at|@)\s*[\])}}>]\s*)|(?P<at>\s+at\s+)|(?P<under>_at_)|(?P<sign>\s+@\s*|@\s+))"
    rf"(?i:{_SPOKEN_HOST})"
)
# Where `_SPOKEN` can match, on `_PLAIN` bytes, each with a literal in front.
_MARKS = (
    (b" at ", re.compile(rb" at +[a-z0-9?][a-z0-9?_-]*(?:\.[a-z0-9?]| ?\(? ?dot)")),
    (b"at)", re.compile(rb"\(at\)")),
    (b"at )", re.compile(rb"\( at \)")),
    (b"_at_", re.compile(rb"_at_")),
    (b"@", re.compile(rb"\(? ?@ | @|\(@\)")),
)
_GENERIC_TOP = re.compile(
    r"(?:com|net|org|edu|gov|mil|int|info|biz|name|pro|io|dev|app|ai|me|email|mail|online|site|cloud|tech|xyz)\Z"
)
_FILE_SUFFIX = re.compile(r"(?:[bgx]z|cc|[chjrt]s|db|gd|hh|kt|m[dklo]|p[mosy]|r[bs]|s[hot]|tf|ui|vb)\Z")
# What stands before "at host.org" where a sentence names a web page and not somebody.
_ORDINARY = re.compile(
    r"(?:and|are|articles?|be|books?|bugs?|code|comments|data|demo|discussion|docs|documentation|down|examples?|files?"
    r"|found|get|guide|here|homepage|index|info|is|issues?|it|links?|lists?|live|look|me|more|online|or|out|pages?"
    r"|projects?|read|repo|repository|see|site|source|start|text|them|there|thread|tutorial|up|us|version|visit|was"
    r"|website|were|wiki|works?)\Z"
)
_ORDINARY_END = ("able", "ed", "al", "ing", "ion", "ions", "ment", "ments", "ible")
_DETERMINER = re.compile(
    r"\b(?:a|an|the|this|that|these|those|its|our|their|your|his|her|my|is|are|was|were|some|any)\s+\Z",
    re.IGNORECASE,
)
_WEB_HOST = re.compile(
    r"(?:www|docs?|bugs|hg|svn|git|wiki|blog|forums?|discuss|packaging|peps|pypi|packages|download|downloads|developer|help)"
    r"\.|(?:github|gitlab|bitbucket|sourceforge|readthedocs|stackoverflow|youtube|wikipedia|crates|pypi|rust-lang)\.\w+\Z",
    re.IGNORECASE,
)
# The account of a service, as in git@github.com:owner/name.
_SERVICE = frozenset({"git", "hg", "svn"})


def _common(host: str) -> bool:
    """Whether a host ends in a top-level domain under which people have addresses, and not in a file's suffix."""
    top = re.split(r"[\W_]+", host.lower())[-1]
    return bool(_GENERIC_TOP.match(top) or (len(top) == 2 and not _FILE_SUFFIX.match(top)))


def _local(text: str, end: int, spoken: bool = False) -> int | None:
    """Where the part of an address that ends before `end` begins, or null where there is none."""
    window = text[max(0, end - 66) : end]
    found = _LOCAL_END.search(window)
    name = found[0].lstrip(".%+'’-") if found else ""
    if not name and not spoken:
        found = _QUOTED_END.search(window) or _WORD_END.search(window)
        name = found[0] if found else ""
    return end - len(name) if name else None


def _enclosed(text: str, start: int, end: int) -> tuple[int, int]:
    """The range with the angle brackets around it, if there are any."""
    return (start - 1, end + 1) if start and text[start - 1] == "<" and text[end : end + 1] == ">" else (start, end)


def _written(text: str) -> Iterator[Finding]:
    """Addresses with an at sign, and the user and password of a URL."""
    for mark in _AT_SIGN.finditer(text):
        host = _HOST.match(text, mark.end()) or _ANY_HOST.match(text, mark.end())
        start = _local(text, mark.start())
        if host is None or start is None or _NO_HOST.match(host[0].lower()):
            continue
        # `a@b.mean(…)` and `a@b.data[…]` are matrix products; `jane@example.com(Jane)` is not.
        if text[host.end() : host.end() + 1] in ("(", "[") and not _common(host[0]):
            continue
        # A mailing list's archive (Mailman 3: …/archives/list/NAME@HOST/thread/…) is a public place and nobody's.
        if text.startswith("/list/", max(0, start - 6)) and text[host.end() : host.end() + 1] == "/":
            continue
        if text[start : mark.start()].lower() in _SERVICE or _USERINFO_END.search(text, max(0, start - 128), start):
            continue
        yield Finding(EMAIL, *_enclosed(text, start, host.end()))


def _is_site(text: str, start: int, end: int, host: str, name: str) -> bool:
    """Whether "name at host" tells where a page is. A name with a dot or a digit in it is always somebody's."""
    if text[end : end + 1] == "/" or _WEB_HOST.match(host):
        return True
    if re.search(r"[\d._+]", name):
        return False
    lower = name.lower()
    if _ORDINARY.match(lower) or lower.endswith(_ORDINARY_END):
        return True
    return _DETERMINER.search(text, max(0, start - 12), start) is not None


def _spoken(text: str, plain: bytes) -> Iterator[Finding]:
    """Addresses written to evade collectors: `name at host.org`, `name (at) host dot org`, `name @ host.org`."""
    marks = {mark.start() for literal, pattern in _MARKS if literal in plain for mark in pattern.finditer(plain)}
    for mark in sorted(marks):
        while mark and text[mark - 1].isspace():
            mark -= 1
        match = _SPOKEN.match(text, mark)
        start = _local(text, match.start(), spoken=True) if match else None
        if match is None or start is None:
            continue
        end, host = match.end(), match["host"]
        left, right = _enclosed(text, start, end)
        if not re.search(r"[^\W_]", text[start : match.start()]):
            continue
        name = text[start : match.start()]
        certain = left < start or match["bracket"] or re.search(r"(?i)\bdot\b|_dot_", host)
        if not certain:
            generic = _GENERIC_TOP.match(host.lower().rpartition(".")[2])
            if not _common(host) or (not generic and (match["under"] or text[end : end + 1] in ("(", "["))):
                continue
            if match["at"] and _is_site(text, start, end, host, name):
                continue
        yield Finding(EMAIL, left, right)


# --- keys -------------------------------------------------------------------------------------------------------------

_B64 = "-A-Za-z0-9_"
# Prefix and alphabet as documented by the issuer named beside it (also collected in gitleaks' rules, MIT).
_SHAPES = (
    r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    r"LTAI[A-Za-z0-9]{16,30}(?![A-Za-z0-9])|AKID[A-Za-z0-9]{32}",  # Alibaba, Tencent
    r"gh[pousr]_[A-Za-z0-9_]{30,255}|github_pat_[A-Za-z0-9_]{22,255}",  # GitHub
    rf"gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-[{_B64}.]{{20,}}|GR1348941[{_B64}]{{20}}",  # GitLab
    rf"xox[abceoprs](?:\.xox[bp])?-[{_B64}]{{20,}}|xapp-\d-[{_B64}]{{20,}}",  # Slack
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{30,}",
    rf"discord(?:app)?\.com/api/webhooks/\d{{15,}}/[{_B64}]{{40,}}",  # Discord
    rf"[MNO][{_B64}]{{23,27}}\.[{_B64}]{{6}}\.[{_B64}]{{27,}}",
    r"[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}={0,2}",  # Stripe
    rf"AIza[{_B64}]{{35}}|GOCSPX-[{_B64}]{{28}}|ya29\.[{_B64}.]{{20,}}",  # Google
    rf"sk-(?:proj|svcacct|admin|ant|or)-[{_B64}]{{20,}}|sk-[A-Za-z0-9]{{32,}}",  # OpenAI, Anthropic, OpenRouter
    r"hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{37}",  # Hugging Face, Replicate
    r"gsk_[A-Za-z0-9]{48,}|xai-[A-Za-z0-9]{60,}|pplx-[A-Za-z0-9]{40,}",  # Groq, xAI, Perplexity
    # npm, PyPI, RubyGems, crates.io
    rf"npm_[A-Za-z0-9]{{36}}|pypi-AgE[{_B64}]{{50,}}|rubygems_[a-f0-9]{{48}}|cio[A-Za-z0-9]{{32}}(?![A-Za-z0-9])",
    rf"dckr_pat_[{_B64}]{{27}}|do[opr]_v1_[a-f0-9]{{64}}|dapi[a-f0-9]{{32}}",  # Docker, DigitalOcean, Databricks
    # Shopify, Square
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|sq0(?:csp|atp|idp)-[A-Za-z0-9_-]{22,}|EAAA[A-Za-z0-9_-]{60}",
    # SendGrid, Mailgun, Mailchimp
    rf"SG\.[{_B64}]{{16,32}}\.[{_B64}]{{16,64}}|key-[0-9a-f]{{32}}(?![0-9a-f])|[0-9a-f]{{32}}-us\d{{1,2}}(?!\w)",
    r"(?:AC|SK)[0-9a-f]{32}(?![A-Za-z0-9])",  # Twilio
    rf"\d{{8,10}}:[{_B64}]{{35}}(?![{_B64}])",  # Telegram
    rf"eyJ[{_B64}]{{8,}}\.eyJ[{_B64}]{{8,}}(?:\.[{_B64}]*)?",  # JSON Web Token, RFC 7519
    r"AccountKey=[A-Za-z0-9+/]{80,}={0,2}",  # Azure
    rf"hv[sbr]\.[{_B64}]{{24,}}|[A-Za-z0-9]{{14}}\.atlasv1\.[{_B64}]{{60,}}",  # HashiCorp
    rf"NRAK-[A-Z0-9]{{27}}|gl(?:sa|c)_[{_B64}+/=]{{30,}}|sntry[su]_[{_B64}+/=]{{40,}}",  # New Relic, Grafana, Sentry
    # Atlassian, Linear, Notion
    rf"AT(?:ATT|CTT)3[{_B64}=]{{60,}}|lin_api_[A-Za-z0-9]{{40}}|ntn_[A-Za-z0-9]{{40,}}|secret_[A-Za-z0-9]{{43}}",
    # Doppler, PlanetScale, Postman
    rf"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9]{{40,}}|pscale_(?:tkn|pw|oauth)_[{_B64}.]{{32,}}|PMAK-[a-f0-9]{{24}}-\w+",
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",  # age
)
_KEY = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(_SHAPES)})")
_START = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z0-9]")
_REACH = 24  # characters before a long run that may belong to its shape (`123456789:`, `AccountKey=`)
_NAMED = re.compile(
    r"(?:api[_-]?key|secret|token|passw(?:or)?d|pwd|credentials?|(?:private|access|encryption|signing|account)[_-]?key"
    r"|auth|密码|密钥|口令|令牌)[\w-]{0,16}[\"'`\])]{0,2}\s*(?::=|=>|[=:：])\s*[\"'`(]{0,2}\Z"
    r"|\b(?:bearer|basic|authorization: token)\s+\Z",
    re.IGNORECASE,
)
_GIVEN = re.compile(r"[\"'`(]{0,2}\s*(?:[=:：>]|reraeb|cisab|nekot)", re.IGNORECASE)  # how `_NAMED` ends, backwards
_VALUE = re.compile(r"[A-Za-z0-9_\-+/~]{20,}={0,2}")
_CLASS_CHANGE = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_PRIVATE = re.compile(
    r"-{4,5} ?BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
    r"(?:(?:(?!-{4,5} ?BEGIN )[\s\S]){0,20000}?-{4,5} ?END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
    r"|(?:\\[rn]|[A-Za-z0-9+/=\s:,\"'-])*)"
)
_PRIVATE_TAIL = re.compile(
    r"(?:[A-Za-z0-9+/=]{16,}(?:\s|\\[rn])+)+-{4,5} ?END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
)
_BODY = re.compile(r"[A-Za-z0-9+/=]{16}")
_USERINFO = re.compile(r"://([^\s/@:<>{}$\[\]\"'`]*:[^\s/@<>{}$\[\]\"'`]+)@(?=[\w\[])")
_USERINFO_END = re.compile(r"://[^\s/@]*:[^\s/@]*\Z")
_NO_PASSWORD = re.compile(
    r".*:(?:\W*|your.*|(?:my|the)?[_-]?(?:pass(?:word|wd)?|pwd|pw|secret|token|x+)\d?)\Z", re.IGNORECASE
)


def _random(value: str) -> bool:
    """Whether a value looks drawn at random: letters and digits change places too often for words and versions."""
    digits = sum(map(str.isdigit, value))
    letters = sum(map(str.isalpha, value))
    return digits > 1 and letters > 1 and len(set(value)) > 8 and 6 * len(_CLASS_CHANGE.findall(value)) >= len(value)


def _keys(text: str, characters: bytes) -> Iterator[Finding]:
    for start, end in _long_runs(characters):
        # Paths, long names and the rule under a heading. Of a million random keys less than one has so few.
        if len(characters[start:end].translate(None, _LOWER + b"_-+/")) < 2:
            continue
        for first in _START.finditer(text, max(0, start - _REACH), end):
            match = _KEY.match(text, first.start())
            if match:
                yield Finding(KEY, *match.span())
        before = text[max(0, start - 2 * _REACH) : start]
        if _GIVEN.match(before[::-1]) and _NAMED.search(before):
            value = _VALUE.match(text, start, end + 2)
            if value and _random(value[0]):
                yield Finding(KEY, *value.span())


def _private_keys(text: str) -> Iterator[Finding]:
    for pattern in (_PRIVATE, _PRIVATE_TAIL):
        for match in pattern.finditer(text):
            # A sentence may name the header; only with key material below is it a secret.
            if _BODY.search(match[0]):
                end = match.start() + len(match[0].rstrip())
                yield Finding(KEY, match.start(), end)


def _passwords(text: str) -> Iterator[Finding]:
    for match in _USERINFO.finditer(text):
        if not _NO_PASSWORD.match(match[1]):
            yield Finding(KEY, *match.span(1))


# --- numbers ----------------------------------------------------------------------------------------------------------

_DIGITS = re.compile(r"\d[\d().\-/ \u00a0\u2010-\u2013]{5,}\d")
_ASCII_DIGITS = re.compile(rb"[0-9][0-9().\-/ ]{5,}[0-9]")
_SEPARATOR = r"[ \u00a0-]"
_CARD = re.compile(rf"(?<![A-Za-z0-9_.,+\-])\d(?:{_SEPARATOR}?\d){{12,18}}(?![A-Za-z0-9_-]|[.,]\d)")
_CARD_GROUPS = frozenset({(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 4, 1)})
# Issuer ranges of ISO/IEC 7812: Visa, Mastercard, American Express, Discover, Diners Club, JCB, UnionPay, Maestro, Mir.
_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
    r"|(?:50|5[6-8]|6[0-9])\d{14}|220[0-4]\d{12}"
)
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_NORTH_AMERICAN = re.compile(
    r"(?<![A-Za-z0-9_.+/:#$-])(?:\+?1[ .-])?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d(?P<mark>[.-]))[2-9]\d\d"
    r"(?(mark)(?P=mark)|[ .-])\d{4}(?![A-Za-z0-9_/-]|\.\d)"
)
_CHINESE_MOBILE = re.compile(
    rf"(?<![A-Za-z0-9_.+/-])1[3-9]\d(?P<mark>{_SEPARATOR}?)\d{{4}}(?P=mark)\d{{4}}(?![A-Za-z0-9_/-]|\.\d)"
)
_TRUNK = re.compile(
    rf"(?<![A-Za-z0-9_.+/:,-])(?<!\d{_SEPARATOR})(?:\(0\d{{1,4}}\){_SEPARATOR}?|0\d{{1,4}}{_SEPARATOR})"
    rf"\d{{3,4}}(?:{_SEPARATOR}?\d{{3,4}}){{1,2}}(?![A-Za-z0-9_/-]|[.,:]\d|{_SEPARATOR}\d)"
)
_TRUNK_REGIONS = ("GB", "DE", "FR", "IT", "NL", "CN", "JP", "IN", "AU", "KR")
_PLUS = re.compile(
    rf"(?<![A-Za-z0-9_.)\]+-])(?:\+|\b00(?={_SEPARATOR}?[1-9])){_SEPARATOR}?"
    rf"\(?[1-9][\d().\-/ \u00a0\u2010-\u2013]{{5,22}}\d"
)
_CALLED = re.compile(
    r"(?:\b(?:tele?phone|phone|tel|mobile|cell|fax|whatsapp)\b(?: ?(?:number|no\.?|is|at))*"
    r"|电话|電話|手机|手機|传真|傳真|热线|座机|联系方式)"
    r"[号码號碼]{0,2}[\s.:：#=是为\"'*]{0,4}[(（]?\Z",
    re.IGNORECASE,
)
_CALLED_NUMBER = re.compile(r"[+(]{0,2}\d(?:[ \u00a0().-]{0,2}\d){6,14}(?![A-Za-z0-9_]|[.,]\d)")
_NO_PHONE = re.compile(r"(?:ISBN|ISSN|RFC|PEP|DOI|ORCID|SKU|UUID)[\s:#-]*(?:1[03])?[\s:#-]*\Z", re.IGNORECASE)


def _luhn(digits: str) -> bool:
    doubled = [int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _cards(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _CARD.finditer(text, start, end):
        groups = re.split(_SEPARATOR, match[0])
        digits = "".join(str(int(d)) for d in "".join(groups))
        if len(groups) > 1 and tuple(map(len, groups)) not in _CARD_GROUPS:
            continue
        if _ISSUER.fullmatch(digits) and len(set(digits)) > 1 and _luhn(digits):
            yield Finding(CARD, *match.span())


def _valid(number: str, region: str | None, possible: bool = False) -> bool:
    """Whether libphonenumber knows the number as one of `region` (null: of the country code it begins with)."""
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(parsed) or (possible and phonenumbers.is_possible_number(parsed))


def _international(match: re.Match[str]) -> int | None:
    """Where the number that begins with `+` or `00` ends: its longest valid prefix that ends before a separator."""
    number = match[0]
    while sum(map(str.isdigit, number)) >= 7:
        groups = re.findall(r"\d+", number)
        # Sums (`+ 2.718 - 5.0`), decimals, and dumps of equal columns are not numbers to call.
        dotted = "." in number and not all(2 <= len(group) <= 4 for group in groups)
        columns = number.startswith("00") and len({len(group) for group in groups}) == 1 < len(groups)
        if not dotted and not columns and not re.search(r"\d \W \d", number):
            plus = re.sub(r"\A00", "+", number)
            if _valid(plus, None, possible=len(groups) > 2):
                return match.start() + len(number)
        shorter = re.match(r"(.*\d)\D+\d+\Z", number)
        if shorter is None:
            return None
        number = shorter[1]
    return None


def _phones(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _PLUS.finditer(text, start, end):
        stop = _international(match)
        if stop is not None and not re.match(r"\.\d", text[stop : stop + 2]):
            yield Finding(PHONE, match.start(), stop)
    for match in _NORTH_AMERICAN.finditer(text, start, end):
        if not _NO_PHONE.search(text, max(0, match.start() - 12), match.start()):
            yield Finding(PHONE, *match.span())
    for match in _CHINESE_MOBILE.finditer(text, start, end):
        around = text[max(0, match.start() - 16) : match.end() + 16]
        if (match["mark"] or _EAST_ASIAN.search(around)) and _valid(match[0], "CN"):
            yield Finding(PHONE, *match.span())
    for match in _TRUNK.finditer(text, start, end):
        if any(_valid(match[0], region) for region in _TRUNK_REGIONS):
            yield Finding(PHONE, *match.span())
    first = start if text[start] in "(+" or text[start].isdigit() else start + 1
    if _CALLED.search(text, max(0, first - 32), first):
        number = _CALLED_NUMBER.match(text, first)
        if number:
            yield Finding(PHONE, *number.span())


def _numbers(text: str, characters: bytes) -> Iterator[Finding]:
    """Phone numbers and payment cards, each looked for only around a run of digits."""
    runs = _ASCII_DIGITS.finditer(characters) if text.isascii() else _DIGITS.finditer(text)
    for run in runs:
        digits = sum(map(str.isdigit, text[run.start() : run.end()]))
        if digits >= 7:
            # A sign or bracket in front belongs to the number; what follows decides whether it ends there.
            start = run.start()
            while start and run.start() - start < 3 and text[start - 1] in "+( ":
                start -= 1
            start += len(text[start : run.start()]) - len(text[start : run.start()].lstrip(" "))
            if digits >= 13:
                yield from _cards(text, run.start(), run.end() + 2)
            yield from _phones(text, start, run.end() + 2)


# --- all of them ------------------------------------------------------------------------------------------------------


def _scan(text: str) -> Iterator[Finding]:
    """Everything that any rule finds, in no order and possibly overlapping."""
    characters = text.encode("ascii", "replace")
    if "@" in text or "＠" in text or ("%" in text and "%40" in text) or ("&" in text and _AT_SIGN.search(text)):
        yield from _written(text)
        yield from _passwords(text)
    yield from _spoken(text, characters.translate(_PLAIN))
    yield from _keys(text, characters)
    if "PRIVATE KEY" in text:
        yield from _private_keys(text)
    yield from _numbers(text, characters)


def _merged(found: list[Finding]) -> list[Finding]:
    """Sorted, with those that overlap joined into one of the longest one's kind, so that no part of a loser remains."""
    merged: list[tuple[Finding, int]] = []
    for finding in sorted(set(found), key=lambda f: (f.start, -f.end, f.kind)):
        length = finding.end - finding.start
        if merged and finding.start < merged[-1][0].end:
            last, longest = merged[-1]
            kind = finding.kind if length > longest else last.kind
            merged[-1] = (Finding(kind, last.start, max(last.end, finding.end)), max(longest, length))
        else:
            merged.append((finding, length))
    return [finding for finding, _ in merged]


def _replace(text: str, findings: list[Finding]) -> str:
    parts, last = [], 0
    for finding in findings:
        parts += [text[last : finding.start], PLACEHOLDERS[finding.kind]]
        last = finding.end
    return "".join([*parts, text[last:]])


def _mapped(findings: list[Finding], found: list[Finding]) -> list[Finding]:
    """`found`, which are ranges of the masked text, as ranges of the text that `findings` were masked in."""
    shifts: list[tuple[int, int, int, int]] = []
    offset = 0
    for finding in findings:
        start = finding.start + offset
        end = start + len(PLACEHOLDERS[finding.kind])
        shifts.append((start, end, finding.start, finding.end))
        offset = end - finding.end

    def back(position: int, is_end: bool) -> int:
        shift = 0
        for start, end, original_start, original_end in shifts:
            if position <= start:
                break
            if position < end:
                return original_end if is_end else original_start
            shift = original_end - end
        return position + shift

    return [Finding(f.kind, back(f.start, False), back(f.end, True)) for f in found]


def find(text: str) -> list[Finding]:
    """Every secret and personal datum in `text`, sorted, without overlap.

    The search is repeated on the masked text until it finds nothing, so that what one placeholder leaves beside it is
    never itself a finding.
    """
    findings = _merged(list(_scan(text)))
    while findings:
        again = _mapped(findings, list(_scan(_replace(text, findings))))
        grown = _merged([*findings, *again])
        if grown == findings:
            break
        findings = grown
    return findings


def mask(text: str) -> tuple[str, list[Finding]]:
    """`text` with every finding replaced by its placeholder, and the findings as ranges of the original.

    Masking a masked text changes nothing.
    """
    findings = find(text)
    return (_replace(text, findings) if findings else text), findings
