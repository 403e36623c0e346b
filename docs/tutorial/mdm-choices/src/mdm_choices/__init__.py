"""Words to write backwards."""

import random
from itertools import count

from mdm.data import Pair, read
from mdm.protocols import MASK, BaseTask, Example, Message, NoOptions, Prompt
from pydantic import Field

INSTRUCTION = "Write this word backwards. Answer with the reversed word only.\n{}\nAnswer:"


class ChoicesOptions(NoOptions):
    """Which words are made."""

    length: int = Field(4, ge=2, description="letters of a word")


class Choices(BaseTask):
    """Words to write backwards. Right is the reversed word and nothing else."""

    Options = ChoicesOptions
    metric = "accuracy"
    default_limit = 32

    def examples(self, *, seed, data=None):
        """The words of a JSON lines file with ``input``, or random ones without end."""
        if data is not None:
            for number, row in read(data, Pair):
                yield Example(f"{data.stem}-{number}", {"word": row.input}, row.input[::-1])
            return
        rng = random.Random(f"choices:{seed}")
        for number in count():
            word = "".join(rng.choices("abcdefgh", k=self.options.length))
            yield Example(f"{seed}-{number}", {"word": word}, word[::-1])

    def prompt(self, example, style):
        """What a model is shown: text to continue, or an answer with ``MASK`` for each token to fill in."""
        word = example.inputs["word"]
        if style == "compact":
            return Prompt(f"{word}:", MASK * len(word))
        return Prompt((Message("user", INSTRUCTION.format(word)),), gen_length=16)

    def grade(self, example, completion):
        """Numbers, mostly in [0, 1]; ``metric`` is the one that a table shows."""
        return {"accuracy": float(completion.strip() == example.reference)}
