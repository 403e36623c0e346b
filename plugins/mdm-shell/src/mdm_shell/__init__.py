"""What helps at a shell: completion."""
