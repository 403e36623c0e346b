"""FreeDave for mdm: lossless parallel drafts that the model itself verifies."""
