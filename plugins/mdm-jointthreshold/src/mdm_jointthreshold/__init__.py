"""Token editing for mdm: the joint threshold of LLaDA2.1."""
