"""MMaDA (text side) for mdm, on transformers' own Llama."""
