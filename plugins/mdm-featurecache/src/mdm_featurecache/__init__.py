"""dLLM-Cache and d2Cache for mdm: what changes is computed, inside the layers."""
