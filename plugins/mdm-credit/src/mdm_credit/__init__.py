"""CreditDecoding for mdm: confidence with credit for tokens that keep being predicted."""
