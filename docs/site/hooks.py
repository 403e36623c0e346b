"""The order of the site's pages. A page that is not named here comes at the end, so that none is lost."""

from __future__ import annotations

from typing import Any

ORDER: dict[str, list[str]] = {
    "Start": ["index.md", "quickstart.md", "concepts.md"],
    "Guides": [
        "models.md", "samplers.md", "caches.md", "evaluation.md", "recipes.md", "proteins.md", "watching.md",
        "chat.md", "serving.md", "sessions.md", "clients.md", "several-gpus.md", "scale.md", "speed.md",
        "benchmarks.md", "results.md",
    ],
    "Write a plugin": ["tutorial.md", "plugins.md"],
    "Reference": ["reference.md", "cli.md", "architecture.md"],
}  # fmt: skip


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs when it has found the pages."""
    there = [file.src_uri for file in files.documentation_pages()]
    named = {page for pages in ORDER.values() for page in pages}
    sections = ORDER | {"More": [page for page in there if page not in named]}
    found = {title: [page for page in pages if page in there] for title, pages in sections.items()}
    config.nav = [{title: pages} for title, pages in found.items() if pages]
    return files
