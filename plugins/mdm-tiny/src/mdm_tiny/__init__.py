"""The embedded model: a trained masked diffusion model of 0.9 million parameters, in LLaDA's own format."""

from pathlib import Path


def checkpoint() -> str:
    """The folder with config.json, model.safetensors and tokenizer.json."""
    return str(Path(__file__).parent / "checkpoint")
