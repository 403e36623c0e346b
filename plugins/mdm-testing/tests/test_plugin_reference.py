"""docs/plugins.md shows the seams as they are."""

from __future__ import annotations

import plugin_reference


def test_the_page_is_what_the_sources_say():
    text = plugin_reference.PAGE.read_text(encoding="utf-8")
    assert plugin_reference.page(text) == text, "stale: run `python tests/support/plugin_reference.py`"


def test_it_shows_the_exact_signature_of_every_hook():
    text = plugin_reference.PAGE.read_text(encoding="utf-8")
    assert "def on_step(self, event: Any) -> None:" in text
    assert "def decide(self, state: State, scores: Scores, memory: Any, draws: Draws)" in text
