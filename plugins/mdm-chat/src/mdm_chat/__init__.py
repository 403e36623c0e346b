"""``mdm chat``: a talk with a model in the terminal."""
