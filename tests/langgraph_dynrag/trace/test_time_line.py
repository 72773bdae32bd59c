"""Where the seconds of a run went."""

import pytest

from langgraph_dynrag.trace.rounds import Round
from langgraph_dynrag.trace.time_line import time_line
from tests.langgraph_dynrag.trace.parsed import parsed


def timed(**seconds):
    return Round(events=[{"type": "calls", "node": node, "seconds": value} for node, value in seconds.items()])


def totals(rounds):
    nodes = {node for r in rounds for node in r.seconds}
    return {node: sum(r.seconds.get(node, 0.0) for r in rounds) for node in nodes}


def shown(*rounds):
    return parsed(time_line(rounds, [f"Search {i}" for i in range(1, len(rounds) + 1)], totals(rounds)))


def widths(bar):
    return [float(part.attributes["style"].removeprefix("width:").removesuffix("%")) for part in bar.all("span")]


def test_the_whole_run_is_a_bar_with_its_numbers_as_text():
    tree = shown(timed(generate=3.0, retrieve=1.0, verify=0.001))
    assert [li.text.split() for li in tree.one("ul", "legend").all("li")] == [
        ["generate", "3.00", "s", "(75%)"],
        ["retrieve", "1.00", "s", "(25%)"],
        ["verify", "<", "0.01", "s"],
    ]
    bar = tree.one("div", "bar")
    assert bar.attributes["aria-hidden"] == "true"
    assert sum(widths(bar)) == pytest.approx(100, abs=0.2)
    assert not tree.all("table")


def test_each_round_is_a_row_with_a_bar_in_proportion_to_the_longest():
    tree = shown(timed(generate=3.0, retrieve=1.0), timed(generate=1.0))
    rows = tree.one("tbody").all("tr")
    assert [row.one("th").text for row in rows] == ["Search 1", "Search 2"]
    assert [row.one("td", "n").text for row in rows] == ["4.00 s", "1.00 s"]
    assert [widths(row.one("div", "bar")) for row in rows] == [[75, 25], [25]]
    assert "generate 3.00 s, retrieve 1.00 s" in rows[0].text


def test_the_longest_of_many_rounds_are_listed():
    tree = shown(*[timed(generate=1.0 + i) for i in range(100)])
    assert [row.one("th").text for row in tree.one("tbody").all("tr")] == [f"Search {i}" for i in range(61, 101)]
    assert "The 40 longest of 100 parts." in tree.text


def test_a_record_without_times_has_no_time_line():
    assert time_line([Round()], ["Search 1"], {}) == ""
