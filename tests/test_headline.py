"""The record of headline ratios, from a small model."""

import sys

from softprune import paths

sys.path.insert(0, str(paths.root() / "benchmarks"))
import headline


def test_ratios_are_against_the_plain_method_and_name_the_class(smoke):
    rows = headline.measure(smoke, 3, methods=("soft", "ssd"))
    value = {(r["method"], r["metric"]): r["value"] for r in rows}
    assert {m for m, _ in value} == {"soft", "ssd", "retrained"}
    assert value["soft", "ratio-request-soft"] == 1
    for m in ("ssd", "retrained"):
        ratio = value[m, "time-request"] / value["soft", "time-request"]
        assert value[m, "ratio-request-soft"] == ratio > 1
    assert {r["forget"] for r in rows} == {"three"}
