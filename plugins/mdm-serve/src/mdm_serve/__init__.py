"""A server of masked diffusion models, compatible with OpenAI's."""
