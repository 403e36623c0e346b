"""The table of attacks: ``pytest -m attack --attack-table tests plugins``.

It counts the trials that are marked ``attack(kind)``, one per case.

A test that makes many trials says how many by ``record_property("trials", n)``.
"""

from __future__ import annotations

from collections import Counter

import pytest

KIND = "attack"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--attack-table", action="store_true", help="end with a table of attacks: kind, tried, held")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if mark := item.get_closest_marker(KIND):
            # Properties travel with the report, also from another process.
            item.user_properties.append((KIND, mark.args[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("attack_table"):
        return
    tried: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            facts = dict(getattr(report, "user_properties", ()))
            if KIND in facts and (report.when == "call" or outcome == "error"):
                tried[facts[KIND]] += facts.get("trials", 1)
                held[facts[KIND]] += facts.get("trials", 1) * (outcome == "passed")
    terminalreporter.section("attacks")
    for kind in sorted(tried):
        terminalreporter.write_line(f"{kind:<60} {tried[kind]:>6} tried {held[kind]:>6} held")
    terminalreporter.write_line(f"{'all':<60} {tried.total():>6} tried {held.total():>6} held")
