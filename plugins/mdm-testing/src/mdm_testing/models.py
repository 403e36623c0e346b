"""What every model family promises, on a checkpoint of its own."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from mdm import registry
from mdm.errors import MdmError
from mdm.models import Model
from mdm.models.kv_store import KVStore
from torch import Tensor

from mdm_testing.kit import NotApplicable, Subject, check
from mdm_testing.probe import Watched, decode, essence, plain, prompts
from mdm_testing.toy import BLOCK

CLOSE = 2e-3
SMALL = 50e6
"""Bytes of weights up to which a checkpoint is copied and damaged, to see that damage is noticed."""


@check("model")
def claims_its_own_checkpoints_only(of: Subject) -> None:
    """It claims the config.json of its checkpoint, and none of another family."""
    assert of.plugin.claims(_config(of)), "does not claim its own checkpoint"
    for strange in ({}, {"model_type": "no-such-family"}, {"architectures": ["NoSuchModel"]}, {"architectures": None}):
        assert not of.plugin.claims(strange), f"claims {strange}"


@check("model")
def its_spec_fits_its_weights(of: Subject) -> None:
    """Ids lie within the vocabulary, the head is as wide as it, and the default cache suits the attention."""
    model = _model(of)
    spec = model.spec
    ids = {"mask_id": spec.mask_id, "pad_id": spec.pad_id, **{f"eos {i}": t for i, t in enumerate(spec.eos_ids)}}
    for name, token in ids.items():
        assert token is None or 0 <= token < spec.vocab_size, f"{name} {token} is outside of {spec.vocab_size} tokens"
    width = model.head(_hidden(model, _canvas(model))).shape[-1]
    assert width == spec.vocab_size, f"the head gives {width} logits, the spec says {spec.vocab_size}"
    assert spec.attention != "block-causal" or spec.block_length, "block-causal without a block length"
    assert spec.default_cache == "none" or spec.has_kv, f"default cache {spec.default_cache} without keys and values"
    assert spec.default_cache != "none" or spec.attention == "full" or spec.has_kv


@check("model")
def it_is_deterministic(of: Subject) -> None:
    """The same canvas twice gives the same logits, without gradients."""
    model = _model(of)
    canvas = _canvas(model)
    one, two = model.score_logits(canvas), model.score_logits(canvas)
    assert torch.equal(one, two), "two forwards of one canvas differ: is it in training mode?"
    assert not any(p.requires_grad for p in model.body.parameters()), "its weights want gradients"


@check("model")
def every_position_sees_what_it_should(of: Subject) -> None:
    """Full attention sees every position; block-causal sees its own block and those before, and no later one."""
    model = _model(of)
    canvas, length = _canvas(model), 12
    base = model.score_logits(canvas, BLOCK)
    step = 1 if model.spec.shift else 0  # the row of position i is computed at i - 1
    for changed in (0, 5, length - 1):
        other = canvas.clone()
        other[0, changed] = (int(other[0, changed]) + 1) % 7 + 3
        moved = (model.score_logits(other, BLOCK) - base).abs().amax(-1)[0] > 1e-5
        for position in range(1, length):
            computed = position - step
            sees = model.spec.attention == "full" or computed // BLOCK >= changed // BLOCK
            assert bool(moved[position]) == sees, (
                f"{model.spec.attention} attention: position {position} "
                f"{'does not see' if sees else 'sees'} a change at {changed}"
            )


@check("model")
def a_mask_hides(of: Subject) -> None:
    """A key that the attention mask hides has no influence: padding changes nothing."""
    model = _model(of)
    canvas = _canvas(model)
    length, more = canvas.shape[1], 5
    padded = torch.cat([canvas, canvas[:, :more]], 1)
    visible = (torch.arange(length + more) < length)[None, None, None].expand(1, 1, length + more, -1)
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    with torch.inference_mode():
        at = torch.arange(length + more)[None]
        hidden = model.hidden(padded, at, mask=mask)[:, :length]
    assert _far(hidden, _hidden(model, canvas)) < CLOSE, "hidden keys change the rest: it ignores the mask"


@check("model")
def positions_are_what_they_are_called(of: Subject) -> None:
    """Tokens run in another order with their positions give the same hidden states."""
    model = _model(of)
    canvas = _canvas(model)
    order = torch.arange(canvas.shape[1] - 1, -1, -1)
    with torch.inference_mode():
        turned = model.hidden(canvas[:, order], order[None])[:, order]
    assert _far(turned, _hidden(model, canvas)) < CLOSE, "the order of a query changes it: it ignores the positions"


@check("model")
def the_shift_is_what_the_spec_says(of: Subject) -> None:
    """What a sampler sees of position i is the row i of the logits, or i - 1 where the spec says shift."""
    model = _model(of)
    watched = Watched(plain())
    [prompt] = prompts(8, (9,))
    decode(model, [prompt], watched, block_length=BLOCK)
    seen = watched.decided[0]
    length = int(seen.state.in_canvas[0].sum())
    at = seen.scores.positions[0][seen.scores.valid[0]]
    canvas = seen.state.tokens[:1, :length]
    if model.spec.attention == "full":
        logits = model.head(_hidden(model, canvas))[0, at - int(model.spec.shift)]
    else:
        logits = model.score_logits(canvas, BLOCK)[0, at]
    logits[:, list(model.spec.suppressed)] = -torch.inf
    log_p = logits.double().log_softmax(-1)
    entropy = -(log_p.exp() * log_p.clamp_min(-1e30)).sum(-1)
    off = float((entropy - seen.scores.entropy[0][seen.scores.valid[0]]).abs().max())
    assert off < CLOSE, f"entropies at the rows that the spec names differ by {off:.3g} from what samplers see"


@check("model")
def a_row_does_not_depend_on_its_neighbours(of: Subject) -> None:
    """In a batch of other lengths a prompt decodes to the same tokens in the same order as alone."""
    model, given = _model(of), prompts(8, (5, 11, 3))
    together = decode(model, given, plain(), tokens_per_step=2)
    for i in (1, 2):
        [alone] = decode(model, [given[i]], plain(), tokens_per_step=2)
        assert essence(alone) == essence(together[i]), f"prompt {i} decodes otherwise alone than in a batch"
        assert model.spec.mask_id not in alone.sequence, "masks are left"


@check("model")
def kept_keys_and_values_are_its_own(of: Subject) -> None:
    """Recomputing a part over kept keys and values gives what the whole forward gives."""
    model = _model(of)
    if not model.spec.has_kv:
        raise NotApplicable("it has no keys and values to keep")
    canvas = _canvas(model)
    length = canvas.shape[1]
    at = torch.arange(4, 9)[None]
    store = KVStore(model, 1, length)
    with torch.inference_mode():
        whole = model.hidden(canvas, torch.arange(length)[None], cache=store.full([0], write=True))
        part = model.hidden(canvas[:, 4:9], at, cache=store.window([0], at))
    assert _far(whole, _hidden(model, canvas)) < CLOSE, "a forward that keeps keys and values gives other states"
    assert _far(part, whole[:, 4:9]) < CLOSE, "a part over kept keys and values differs from the whole"


@check("model")
def the_mask_survives_its_tokenizer(of: Subject) -> None:
    """A text is encoded and decoded unchanged, and [MASK] becomes the spec's mask id."""
    model = _model(of)
    if model.tokenizer is None:
        raise NotApplicable("the checkpoint has no tokenizer")
    ids = model.encode("1[MASK]2")
    assert ids.count(model.spec.mask_id) == 1, f"1[MASK]2 becomes {ids}, where the mask id is {model.spec.mask_id}"
    text = "12"
    assert model.decode(model.encode(text)) == text, f"{text!r} comes back as {model.decode(model.encode(text))!r}"


@check("model")
def a_damaged_checkpoint_is_noticed(of: Subject) -> None:
    """A weight that is missing or surplus is an error in one line that names it."""
    from safetensors.torch import load_file, save_file

    with _folder(of) as folder:
        files = sorted(folder.glob("*.safetensors"))
        if sum(path.stat().st_size for path in files) > SMALL or len(files) > 1:
            raise NotApplicable("the checkpoint is too large to make damaged copies of")
        weights = load_file(files[0])
        last = sorted(weights)[-1]
        damages = {
            last: {name: w for name, w in weights.items() if name != last},
            "surplus_": weights | {"surplus_.weight": torch.zeros(2)},
        }
        for culprit, damaged in damages.items():
            with tempfile.TemporaryDirectory() as copy:
                for path in folder.glob("*.json"):
                    shutil.copy(path, copy)
                save_file(damaged, Path(copy) / "model.safetensors", metadata={"format": "pt"})
                try:
                    of.plugin.load(copy, _config(of), device="cpu", dtype="float32")
                except MdmError as error:
                    assert "\n" not in str(error), f"its error is more than one line: {error}"
                else:
                    raise AssertionError(f"loads a checkpoint with {culprit} missing or surplus")


@contextmanager
def _folder(of: Subject) -> Iterator[Path]:
    """The checkpoint to check with: the one given, the family's own example, or an installed one that it claims."""
    if of.checkpoint is not None:
        if not (of.checkpoint / "config.json").is_file():
            raise MdmError(f"{of.checkpoint} has no config.json: --checkpoint is a folder in Hugging Face format")
        yield of.checkpoint
        return
    with tempfile.TemporaryDirectory() as made:
        of.plugin.example(Path(made))
        if (Path(made) / "config.json").is_file():
            yield Path(made)
            return
    for name in registry.names("checkpoint"):
        folder = Path(registry.resolve("checkpoint", name)())
        if of.plugin.claims(json.loads((folder / "config.json").read_text())):
            yield folder
            return
    raise NotApplicable("no checkpoint of the family: give one with --checkpoint FOLDER")


def _config(of: Subject) -> dict[str, object]:
    with _folder(of) as folder:
        config: dict[str, object] = json.loads((folder / "config.json").read_text())
        return config


def _model(of: Subject) -> Model:
    model = _loaded(of.plugin, of.checkpoint)
    if model.spec.attention not in ("full", "block-causal"):
        raise NotApplicable(f"a {model.spec.attention} model decodes by itself")
    return model


@lru_cache(maxsize=4)
def _loaded(plugin: object, checkpoint: Path | None) -> Model:
    of = Subject("model", "", plugin, checkpoint=checkpoint)
    with _folder(of) as folder:
        model: Model = of.plugin.load(str(folder), _config(of), device="cpu", dtype="float32")
        return model


def _canvas(model: Model) -> Tensor:
    """int64 ``[1, 12]``: small ids, two of them masks."""
    ids = prompts(8, (12,))[0]
    return torch.tensor([[model.spec.mask_id if i in (6, 10) else t for i, t in enumerate(ids)]])


@torch.inference_mode()
def _hidden(model: Model, canvas: Tensor) -> Tensor:
    return model.hidden(canvas, torch.arange(canvas.shape[1])[None].expand_as(canvas))


def _far(a: Tensor, b: Tensor) -> float:
    off = float((a - b).abs().max())
    return off if math.isfinite(off) else math.inf
