"""mdm's samplers as samplers of the dllm framework."""
