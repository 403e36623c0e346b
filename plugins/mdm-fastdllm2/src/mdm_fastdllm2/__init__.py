"""Fast-dLLM v2 checkpoints for mdm, on transformers' own Qwen2."""
