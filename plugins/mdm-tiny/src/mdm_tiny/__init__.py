"""The embedded models: trained masked diffusion models of about a million parameters, in LLaDA's own format."""

from pathlib import Path


def folder_of(name: str) -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json of an embedded model."""
    return Path(__file__).parent / ("checkpoint" if name == "tiny" else f"checkpoint-{name.removeprefix('tiny-')}")


def checkpoint() -> str:
    """The embedded model ``tiny``: characters as tokens."""
    return str(folder_of("tiny"))


def countdown() -> str:
    """The embedded model ``tiny-countdown``: numbers as tokens."""
    return str(folder_of("tiny-countdown"))
