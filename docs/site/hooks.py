"""The site's pages, in order and in sections. A page that is not named here comes last, so that none is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
BESIDE = "integrations/mdm-lm-eval/README.md"
"""A page beside `docs` that pages link to, as it lies in the repository."""

ORDER: dict[str, list[str]] = {
    "Start": ["index.md", "quickstart.md", "install.md", "concepts.md", "from-infogain.md"],
    "Guides": [
        "models.md", "samplers.md", "caches.md", "recipes.md", "evaluation.md", "runs.md", "watching.md", "chat.md",
        "images.md", "proteins.md", "serving.md", "clients.md", BESIDE, "sessions.md", "speed.md", "threads.md",
        "several-gpus.md", "scale.md", "containers.md",
    ],
    "Results": ["results.md", "benchmarks.md"],
    "Develop": ["tutorial.md", "examples.md", "new-family.md", "plugins.md", "architecture.md"],
    "Reference": ["cli.md", "configuration.md", "reference.md"],
}  # fmt: skip


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs when it has found the pages."""
    files.append(File.generated(config, BESIDE, abs_src_path=str(ROOT / BESIDE)))
    there = [file.src_uri for file in files.documentation_pages()]
    named = {page for pages in ORDER.values() for page in pages}
    sections = ORDER | {"More": [page for page in there if page not in named]}
    found = {title: [page for page in pages if page in there] for title, pages in sections.items()}
    config.nav = [{title: pages} for title, pages in found.items() if pages]
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with each page: on the site the page beside `docs` lies in it."""
    return markdown.replace(f"](../{BESIDE})", f"]({BESIDE})")
