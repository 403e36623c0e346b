"""Published layouts that several model families share: which config keys they have, and what these become."""
