"""Token counts of a corpus as a file: ``{"num_token": 100000, "p_baseline_dict": {"5": 511}}``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mdm.errors import MdmError, explain
from pydantic import AliasChoices, BaseModel, Field, ValidationError

Id = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


LARGEST = 2**28
"""Bytes of a file of counts."""


class Frequencies(BaseModel):
    """How often each token id was counted among ``num_token`` tokens.

    PC-Sampler's repository reads ``p_baseline_dict`` and its counting script writes ``token_frequency_dict``: both are
    understood.
    """

    num_token: int = Field(ge=1)
    counts: dict[Id, Count] = Field(
        validation_alias=AliasChoices("p_baseline_dict", "token_frequency_dict"), serialization_alias="p_baseline_dict"
    )

    @classmethod
    def read(cls, path: Path) -> Frequencies:
        """The counts in a file.

        Raises:
            MdmError: there is no such file, or it does not hold counts.
        """
        try:
            if path.exists() and not (path.is_file() and path.stat().st_size <= LARGEST):
                raise MdmError(f"baseline {path} is no file of at most {LARGEST >> 20} MiB: it holds no token counts")
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise MdmError(f"baseline {path}: {error.strerror}: make one with mdm pc-count --tokenizer MODEL") from None
        except ValidationError as error:
            raise MdmError(explain(error, f"baseline {path} holds no token counts: ", cls)) from None

    def check(self, vocabulary: int, path: Path) -> None:
        """Refuse counts of another tokenizer.

        Raises:
            MdmError: a counted id is outside the ``vocabulary``.
        """
        largest = max(self.counts, default=0)
        if largest >= vocabulary:
            raise MdmError(
                f"baseline {path} counts token id {largest}, but the model's vocabulary has {vocabulary} tokens: "
                "count with this model's tokenizer (mdm pc-count --tokenizer MODEL)"
            )
