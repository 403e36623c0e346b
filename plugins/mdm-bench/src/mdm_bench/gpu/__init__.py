"""The prepared check of a GPU: ``python -m mdm_bench.gpu --out FILE.json``.

It says on one page, and in a JSON file, whether decoding on this card is right, how fast it is, and which targets it
meets. It needs a card and the installed packages, no checkpoint and no network.

A call that hangs inside a driver cannot be ended from within its process. So each part runs in a process of its own
(``parts``), which writes a line of JSON for every cell that it has measured; ``runner`` reads them, ends what takes too
long, begins it again behind the cell that hung, and keeps the file up to date.
"""
