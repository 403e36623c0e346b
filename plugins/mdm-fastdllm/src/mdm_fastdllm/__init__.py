"""Fast-dLLM's threshold and factor samplers and SDAR's static and dynamic ones, for mdm."""
