"""The engine: decodes requests with a model, a sampler and a cache."""
