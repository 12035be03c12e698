"""Write docs/families.md: what every family asks, what it gives on a corpus, and what two readers thought of it.

    python docs/families/page.py outputs/families/set

The set is one built from the corpora that the page names. `verdicts.jsonl` beside this script holds the readings.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

from data_builders.families import families
from data_builders.groups import GROUPS, HELD_OUT_GROUPS
from instructrec.core.schema import read_manifest

HERE = Path(__file__).parent
LEAST = 0.9
"""Accept rate below which a family is off by default."""


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    z = 1.96
    middle, half = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


def main(folder: Path) -> None:
    manifest = read_manifest(folder)
    verdicts = defaultdict(list)
    for line in (HERE / "verdicts.jsonl").read_text(encoding="utf-8").splitlines():
        verdict = json.loads(line)
        verdicts[verdict["family"]].append(verdict)
    rows = []
    for name, family in sorted(families().items(), key=lambda pair: (pair[1].group, pair[0])):
        if family.kind != "text":
            continue
        entry = manifest["families"].get(name, {"rows": 0, "rejected": {}})
        rejected = sum(entry["rejected"].values())
        share = f"{rejected / (rejected + entry['rows']):.0%}" if rejected else "–"
        read = verdicts[name]
        accepted = sum(all(verdict["accept"]) for verdict in read)
        low, high = wilson(accepted, len(read)) if read else (0.0, 0.0)
        rate = f"{accepted}/{len(read)} [{low:.0%}, {high:.0%}]" if read else "not read"
        group = family.group + " *" * (family.group in HELD_OUT_GROUPS)
        state = f" **Off:** {family.off}" if family.off else ""
        rows.append(f"| {name} | {group} | {family.signal}{state} | {entry['rows']} | {share} | {rate} |")
    read = [verdict for found in verdicts.values() for verdict in found]
    both = sum(all(verdict["accept"]) for verdict in read)
    apart = sum(len(set(verdict["accept"])) > 1 for verdict in read)
    low, high = wilson(both, len(read))
    text = (HERE / "page.md").read_text(encoding="utf-8")
    text = text.replace("{table}", "\n".join(rows)).replace("{read}", str(len(read)))
    text = text.replace("{both}", f"{both} ({both / len(read):.1%} [{low:.1%}, {high:.1%}])")
    text = text.replace("{apart}", str(apart)).replace("{families}", str(len(rows)))
    text = text.replace("{groups}", "\n".join(f"| {name} | {what} |" for name, what in sorted(GROUPS.items())))
    (HERE.parent / "families.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
