"""Reports on finished runs: ``mdm compare`` and ``mdm trace``."""
