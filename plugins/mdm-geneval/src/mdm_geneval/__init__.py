"""GenEval (Ghosh et al. 2023, arXiv:2310.11513): pictures graded by what a detector finds in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mdm.data import read
from mdm.errors import MdmError
from mdm.protocols import BaseTask, Example, Prompt, PromptStyle
from pydantic import BaseModel, Field

from mdm_geneval.metadata import Metadata
from mdm_geneval.scores import summary
from mdm_geneval.verdict import Rules, verdict

if TYPE_CHECKING:
    from mdm_geneval.grader import PictureGrader

__all__ = ["GenEval", "GenEvalOptions", "Metadata", "Rules", "summary", "verdict"]


class GenEvalOptions(Rules):
    """What grades the pictures, and how strictly."""

    grading: Literal["now", "later"] = Field(
        "now", description="later: a run makes the pictures only, and `mdm grade RUN` grades them"
    )
    detector: str = Field(
        "facebook/mask2former-swin-small-coco-instance",
        description="a Mask2Former for COCO's 80 classes: a folder or a hub id",
    )
    clip: str = Field(
        "openai/clip-vit-large-patch14", description="the CLIP model that names colours: a folder or a hub id"
    )
    device: str = Field("auto", description="where both run: auto, cpu, cuda, cuda:1 or mps")


class GenEval(BaseTask):
    """Pictures of objects in numbers, colours and positions. Right is what a detector and CLIP find as asked."""

    Options: ClassVar[type[BaseModel]] = GenEvalOptions
    answers = "image"
    options_to_grade: ClassVar[Mapping[str, Any]] = {"grading": "now"}

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._grader: PictureGrader | None = None
        if options.grading == "now":
            from mdm_geneval.grader import PictureGrader

            self._grader = PictureGrader(options)

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        if data is None:
            raise MdmError(
                "geneval has no prompts of its own: give --data FILE with evaluation_metadata.jsonl, "
                "which lies in the folder prompts of https://github.com/djghosh13/geneval"
            )
        for index, (_, row) in enumerate(read(data, Metadata)):
            content = row.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            yield Example(f"{index:05}-{row.tag}", content, "")

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        return Prompt(example.inputs["prompt"], kind="image")

    def grade_image(self, example: Example, image: Path) -> Mapping[str, float] | Future[Mapping[str, float]]:
        """``accuracy``: the picture shows what was asked for. Nothing where grading is left for later."""
        if self._grader is None:
            return {}
        return self._grader.grade(Metadata.model_validate(dict(example.inputs)), image)

    def aggregate(self, grades: Mapping[str, Sequence[Mapping[str, float]]]) -> Mapping[str, float]:
        """GenEval's figures, as ``summary`` gives them; a picture that failed is a wrong one."""
        return summary(
            (example_id.partition("-")[2], example_id, repeat.get("accuracy") == 1)
            for example_id, repeats in grades.items()
            for repeat in repeats
        )

    def close(self) -> None:
        if self._grader is not None:
            self._grader.close()
