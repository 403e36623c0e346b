"""LLaDA2.0 and LLaDA2.1 (mixtures of experts) for mdm, on transformers' own Glm4Moe."""
