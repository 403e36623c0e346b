"""What a GenEval prompt asks for: the rows of its file, and the names that they may use."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from mdm.errors import suggest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Tag = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
TAGS: tuple[Tag, ...] = get_args(Tag)
"""The six kinds of prompts, in the order in which GenEval reports them."""

Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
COLORS: tuple[Color, ...] = get_args(Color)

Relation = Literal["left of", "right of", "above", "below"]

CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""GenEval's names of COCO's 80 classes, in COCO's order; COCO itself says mouse, remote and keyboard for three."""

Count = Annotated[int, Field(ge=1, strict=True)]


class _Strict(BaseModel):
    # A misspelt key would change what is graded, so it is refused.
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Objects(_Strict):
    name: str = Field(alias="class")
    count: Count

    @field_validator("name")
    @classmethod
    def _is_a_class(cls, name: str) -> str:
        if name not in CLASSES:
            raise ValueError(f"the detector has no class {name!r}.{suggest(name, CLASSES)}")
        return name


class Include(_Objects):
    """Objects that must be in the picture."""

    color: Color | None = None
    position: tuple[Relation, Annotated[int, Field(ge=0, strict=True)]] | None = None
    """how they lie to the objects of an earlier entry, which is named by its index"""


class Exclude(_Objects):
    """Objects of which there must be fewer than ``count``."""


class Metadata(_Strict):
    """One prompt of GenEval, as its file has it."""

    tag: Tag
    prompt: str = Field(min_length=1)
    include: tuple[Include, ...] = ()
    exclude: tuple[Exclude, ...] = ()

    @model_validator(mode="after")
    def _positions_refer_back(self) -> Metadata:
        for index, entry in enumerate(self.include):
            if entry.position is not None and entry.position[1] >= index:
                raise ValueError(f"include {index}: its position is to {entry.position[1]}, which is no earlier entry")
        if not self.include and not self.exclude:
            raise ValueError("it asks for nothing: include and exclude are empty")
        return self
