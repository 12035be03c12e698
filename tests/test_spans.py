"""Overlapping byte ranges, against looking at each."""

from hypothesis import given
from hypothesis import strategies as st

from instructrec.core.spans import Spans

RANGES = st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(added=st.lists(RANGES, max_size=12), asked=RANGES)
def test_a_range_is_found_if_and_only_if_one_overlaps(added, asked):
    spans = Spans()
    for number, (start, end) in enumerate(added):
        spans.add("a", start, end, str(number))
    name = spans.overlapping("a", *asked)
    overlapping = {str(n) for n, (start, end) in enumerate(added) if start < asked[1] and asked[0] < end}
    assert name in overlapping if overlapping else name is None
    assert ("a" in spans) == bool(added)


def test_files_are_kept_apart():
    spans = Spans()
    spans.add(("a", 1), 0, 10, "first")
    assert spans.overlapping(("a", 2), 0, 10) is None and spans.overlapping(("a", 1), 9, 12) == "first"
    assert ("a", 2) not in spans
