"""What a model reads at a hole: the probabilities of labels there, in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mdm.engine.canvas import block_length_of, open_rows
from mdm.engine.memory import plan_batch
from mdm.engine.requests import open_requests
from mdm.errors import MdmError
from mdm.models.layout import Layout
from mdm.models.model import Model
from mdm.models.transfer import to_device
from mdm.protocols.draws import Draws
from mdm.protocols.settings import Settings
from mdm.scoring.forward_batch import ForwardBatch
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.scorer import Scorer


def label_ids(model: Model, labels: Sequence[str | int]) -> list[int]:
    """The token of each label.

    Raises:
        MdmError: there is no label, or the same twice, one is no single token, or the vocabulary lacks it.
    """
    if isinstance(labels, str) or not labels:
        raise MdmError(f"labels is {labels!r}: give a list of texts or token ids")
    found: list[int] = []
    for label in labels:
        if type(label) not in (str, int):
            raise MdmError(f"label {label!r} is neither a text nor a token id")
        ids = model.text.content(label, behind=True) if isinstance(label, str) else [label]
        if len(ids) != 1:
            raise MdmError(f"label {label!r} is {len(ids)} tokens, and a hole holds one: give shorter labels or ids")
        if not 0 <= ids[0] < model.spec.vocab_size:
            raise MdmError(f"label {label!r}: the vocabulary has {model.spec.vocab_size} tokens")
        if ids[0] in found:
            raise MdmError(f"label {label!r} is the same token as {labels[found.index(ids[0])]!r}")
        found += ids
    return found


@torch.inference_mode()
def read(model: Model, layouts: Sequence[Layout], labels: Sequence[int]) -> list[list[float]]:
    """Of each layout, which holds one mask, the probabilities of the tokens ``labels`` there.

    Raises:
        MdmError: a layout has no mask, or several.
    """
    spec = model.spec
    for number, layout in enumerate(layouts):
        if (holes := list(layout.tokens).count(spec.mask_id)) != 1:
            raise MdmError(f"prompt {number} has {holes} masks: it is read at one")
    settings = Settings()
    settings = settings.model_copy(update={"block_length": block_length_of(settings, spec)})
    requests = open_requests(spec, layouts, 0, None, None, guidance=False)
    longest = max((len(layout.tokens) + len(layout.suffix or ()) for layout in layouts), default=1)
    sizes = plan_batch(model, longest, len(layouts), kv=False, cfg_branches=1, batch_size="auto", max_rows="auto")
    found: list[list[float]] = []
    for start in range(0, len(requests), sizes.batch_size):
        rows, state = open_rows(requests[start : start + sizes.batch_size], spec, settings, "canvas")
        state, count = state.to(model.device), len(rows)
        scorer = Scorer(model, LogitRules(), settings, logits=True)
        scorer.readouts = [scorer.readout] * count
        index = torch.arange(count, device=model.device)
        batch = ForwardBatch(
            rows=range(count), row_index=index, tokens=state.tokens, lengths=[row.length for row in rows],
            score=state.masked, score_counts=[1] * count, unscored=torch.zeros_like(index),
        )  # fmt: skip
        scores, _ = scorer.scores(state, batch, Draws(0, state.row_id, state.step))
        assert scores.logits is not None
        shares = scores.logits[:, 0].double().softmax(-1)
        found += shares.index_select(1, to_device(labels, model.device)).tolist()
    return found
