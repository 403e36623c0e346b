"""What is read from files that others wrote: examples row by row, and whole documents, within bounds."""

from mdm.data.examples import HubData, Pair, read, read_hub, validate

__all__ = ["HubData", "Pair", "read", "read_hub", "validate"]
