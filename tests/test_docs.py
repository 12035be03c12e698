"""What the documentation points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted(
    page for folder in ("docs", "recipes", "benchmarks") for page in (ROOT / folder).rglob("*.md")
)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_module_is_in_the_tree():
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = tree[tree.index("## The tree") :]
    modules = [path for folder in ("instructrec", "data_builders") for path in (ROOT / folder).glob("*.py")]
    assert not sorted(path.name for path in modules if not path.name.startswith("_") and path.name not in tree)
