"""PC-Sampler and linear-position samplers for mdm, and the token frequencies they need."""
