"""Prophet for mdm: ends early once the answer is settled."""
