"""EB-Sampler for mdm: entropy-bounded unmasking."""
