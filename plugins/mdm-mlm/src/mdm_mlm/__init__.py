"""Any transformers masked language model (BERT, ModernBERT, ESM-2) decoded by mdm."""
