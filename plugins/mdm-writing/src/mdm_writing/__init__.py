"""Creative writing for mdm, judged by a language model behind an OpenAI-compatible endpoint."""
