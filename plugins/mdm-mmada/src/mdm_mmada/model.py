"""MMaDA as a model that draws pictures, sees them, and writes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING

import torch
from mdm.errors import MdmError
from mdm.models import Layout, Model
from mdm.protocols import MASK, Message, Picture, Prompt

from mdm_mmada.canvases import SpecialTokens, image_first, text_to_image

if TYPE_CHECKING:
    from mdm_mmada.picture_tokenizer import PictureTokenizer
    from mdm_mmada.pictures import Picture as Pixels

MOST = 128
"""Rows and columns of a picture's codes: four times what the published models were trained with."""
GREY = 128
"""What a patch without a code is shown as."""


class MmadaModel(Model):
    """A model whose vocabulary holds image codes behind the text, from ``spec.image_offset`` on."""

    special = SpecialTokens()
    """The tokens around a picture."""
    slots = 1024
    """How many codes a picture has, where no ``image_size`` says otherwise."""
    image_tokenizer: PictureTokenizer | None = None
    image_size: int | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a picture's codes.

        Raises:
            MdmError: its pictures are not square, and none says how large they are.
        """
        if self.image_size is not None and self.image_tokenizer is not None:
            return (self.image_size // self.image_tokenizer.down_factor,) * 2
        side = isqrt(self.slots)
        if side * side != self.slots:
            raise MdmError(
                f"{self.name}: {self.slots} codes of a picture (num_vq_tokens) are no square: give image_size"
            )
        return side, side

    def lay_out(self, prompt: Prompt, mask: str = MASK) -> Layout:
        if prompt.kind == "image":
            return self._drawn(prompt)
        chat = () if isinstance(prompt.context, str) else prompt.context
        pictures = [picture for message in chat for picture in message.pictures]
        if not pictures:
            return super().lay_out(prompt, mask)
        if len(pictures) > 1:
            raise MdmError(f"{self.name} sees one picture in a chat, and this one has {len(pictures)}")
        texts = tuple(Message(message.role, message.text) for message in chat)
        asked = super().lay_out(Prompt(texts, prompt.answer, prompt.gen_length), mask)
        tokens = image_first(self._codes(pictures[0]), asked.tokens, self._checked_special())
        return Layout(tokens, "chat", len(tokens) - len(asked.tokens) + asked.context, asked.gen_length, asked.suffix)

    def _drawn(self, prompt: Prompt) -> Layout:
        if not isinstance(prompt.context, str):
            raise MdmError(f"{self.name} draws what a plain text says: give no chat for a picture")
        if prompt.answer or prompt.gen_length or prompt.stop:
            raise MdmError("a prompt for a picture has a context alone: no answer, gen_length or stop")
        special, (rows, columns) = self._checked_special(), self.grid
        shown = text_to_image(self.encode(prompt.context, None) if prompt.context else [], special)
        return Layout(
            shown, "image", len(shown), rows * columns, (special.end_of_image,), text_to_image([], special),
            (rows, columns),
        )  # fmt: skip

    def _codes(self, picture: Picture) -> list[int]:
        """The tokens of a picture."""
        from mdm_mmada.pictures import fit_picture, read_picture

        if self.image_tokenizer is None:
            raise MdmError(f"{self.name} sees pictures with an image tokenizer: name one (image_tokenizer)")
        size = self.grid[0] * self.image_tokenizer.down_factor
        pixels = fit_picture(read_picture(picture.path), size, squash=picture.squash)
        return [self._offset() + code for code in self.image_tokenizer.encode(pixels[None])[0].tolist()]

    def picture(self, tokens: Sequence[int | None], grid: tuple[int, int]) -> Pixels | None:
        if self.image_tokenizer is None:
            return None
        offset, mask_id = self._offset(), self.spec.mask_id
        known = torch.tensor([token not in (None, mask_id) for token in tokens])
        codes = torch.tensor([0 if token in (None, mask_id) else token - offset for token in tokens])
        pixels: Pixels = self.image_tokenizer.decode(codes[None], grid=grid)[0].cpu().numpy()
        if not bool(known.all()):
            side = self.image_tokenizer.down_factor
            pixels[(~known.view(grid)).numpy().repeat(side, 0).repeat(side, 1)] = GREY
        return pixels

    @property
    def draws_pictures(self) -> bool:
        return self.image_tokenizer is not None

    def load_image_tokenizer(self, source: str, *, offline: bool = False, image_size: int | None = None) -> None:
        from mdm_mmada.picture_tokenizer import load_picture_tokenizer

        try:
            tokenizer = load_picture_tokenizer(source, device=str(self.device), offline=offline)
        except MdmError as error:
            raise MdmError(f"image_tokenizer: {error}") from None
        if tokenizer.codebook_size != self.spec.image_codes:
            raise MdmError(
                f"{source} has {tokenizer.codebook_size} codes, and {self.name} was trained with "
                f"{self.spec.image_codes}: they do not belong together"
            )
        side = tokenizer.down_factor
        if image_size is not None and (image_size % side or not 2 <= image_size // side <= MOST):
            raise MdmError(
                f"image_size {image_size} is no multiple of {side}, the pixels of a code, "
                f"from {2 * side} to {MOST * side}"
            )
        self.image_tokenizer, self.image_size = tokenizer, image_size

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        text = iter(super().token_texts([i for i in ids if not self._is_code(i)]))
        return ["" if self._is_code(i) else next(text) for i in ids]

    def decode(
        self, ids: Sequence[int], eos_ids: Sequence[int] | None = None, stop: Sequence[str] = (), given: int = 0
    ) -> str:
        ends = [i for i, token in enumerate(ids) if not self._is_code(token)]
        given = sum(1 for i in ends if i < given)
        return super().decode([ids[i] for i in ends], eos_ids, stop, given)

    def _is_code(self, token: int) -> bool:
        offset = self.spec.image_offset
        return offset is not None and token >= offset

    def _offset(self) -> int:
        if self.spec.image_offset is None:
            raise MdmError(
                f"{self.name} has no tokenizer, behind whose tokens the image codes begin: name the first of them in "
                "config.json (image_token_offset)"
            )
        return self.spec.image_offset

    def _checked_special(self) -> SpecialTokens:
        return self.special.checked(self._offset(), self.spec.mask_id, self.name)
