"""Trains an embedded model: ``python -m mdm_tiny.train --model tiny``. Seeded, resumable, on CPU or GPU.

The data are made by the installed tasks, found by name: examples in the compact style, with seeds that no evaluation
uses. The objective is LLaDA's (arXiv:2502.09992): a rate t is drawn for each row, every response token is masked with
probability t, and the masked ones are predicted. ``mdm_tiny.recipes`` says what each model is and what it learns.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from mdm_tiny import folder_of
from mdm_tiny.muon import Float32Muon
from mdm_tiny.recipes import EOS, MASK_TOKEN, RECIPES, UNKNOWN, Phase, Recipe, Sequence, Source

PERIODS = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 13.0, 20.0, 30.0, 50.0, 70.0, 100.0, 140.0, 200.0, 400.0, 800.0)
RATIOS = (0.17, 0.35, 0.75, 1.5, 3.0, 12.0)
"""Lengths of the waves of a number, and of its natural logarithm."""

NAMES = {
    "model.embed_tokens": "model.transformer.wte",
    "model.norm": "model.transformer.ln_f",
    "lm_head": "model.transformer.ff_out",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}
"""From Llama's weight names to LLaDA's."""


def batch(recipe: Recipe, rows: list[Sequence], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noised tokens, targets (-100 where nothing is asked) and real positions, each ``[B, L]``."""
    length = max(len(r.ids) for r in rows)
    tokens = torch.tensor([[*r.ids, *[recipe.eos_id] * (length - len(r.ids))] for r in rows])
    at = torch.arange(length)
    real = at < torch.tensor([len(r.ids) for r in rows])[:, None]
    response = real & (at >= torch.tensor([r.first for r in rows])[:, None])
    rate = torch.rand(len(rows), 1, generator=generator) ** recipe.skew
    masked = response & (torch.rand(tokens.shape, generator=generator) < rate)
    return tokens.masked_fill(masked, recipe.mask_id), tokens.masked_fill(~masked, -100), real


def network(recipe: Recipe) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=recipe.vocabulary, hidden_size=recipe.width, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads, intermediate_size=recipe.inner,
        max_position_embeddings=256, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=False,
    )  # fmt: skip
    config.is_causal = False
    model = LlamaForCausalLM(config)
    if recipe.waves:
        begin_as_waves(recipe, model.model.embed_tokens.weight, model.lm_head.weight)
    return model


def begin_as_waves(recipe: Recipe, inside: Tensor, outside: Tensor) -> None:
    """Let the vectors of numbers begin as sines and cosines of the number and of its logarithm.

    Adding is then a turn by a fixed angle, as multiplying is, so that arithmetic is not learned pair by pair.
    """
    numbers = [(id, int(token)) for id, token in enumerate(recipe.tokens) if token.isdigit()]
    ids, values = (torch.tensor(column) for column in zip(*numbers, strict=True))
    angles = torch.cat(
        [values[:, None] / torch.tensor(PERIODS), (values[:, None] + 0.5).log() / torch.tensor(RATIOS)], 1
    )
    waves = torch.cat([(2 * math.pi * angles).sin(), (2 * math.pi * angles).cos()], 1)
    with torch.no_grad():
        inside *= 25  # to be as large as a wave
        inside[ids, : waves.shape[1]] = waves
        outside[ids, : waves.shape[1]] = 0.2 * waves


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata={"format": "pt"})
    os.replace(part, path)


def export(recipe: Recipe, weights: dict[str, Tensor], folder: Path) -> None:
    """A checkpoint in LLaDA's format: config.json, model.safetensors and the tokenizer."""
    renamed = {}
    for name, tensor in weights.items():
        for llama, llada in NAMES.items():
            name = name.replace(llama + ".", llada + ".")
        renamed[name.replace("model.layers.", "model.transformer.blocks.")] = tensor.float()
    save_tensors(folder / "model.safetensors", renamed)
    config = {
        "activation_type": "silu", "alibi": False, "architectures": ["LLaDAModelLM"], "attention_dropout": 0.0,
        "attention_layer_norm": False, "block_group_size": 1, "block_type": "llama", "d_model": recipe.width,
        "embedding_size": recipe.vocabulary, "eos_token_id": recipe.eos_id, "include_bias": False,
        "include_qkv_bias": False, "input_emb_norm": False, "layer_norm_type": "rms", "layer_norm_with_affine": True,
        "mask_token_id": recipe.mask_id,
        "max_sequence_length": 256, "mlp_hidden_size": recipe.inner, "model_type": "llada", "n_heads": recipe.heads,
        "n_kv_heads": recipe.heads, "n_layers": recipe.layers, "pad_token_id": recipe.eos_id, "prompt_style": "compact",
        "rms_norm_eps": 1e-05, "rope": True, "rope_theta": 10000.0, "scale_logits": False, "torch_dtype": "float32",
        "use_cache": False, "vocab_size": recipe.vocabulary, "weight_tying": False,
    }  # fmt: skip
    write(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    write(folder / "tokenizer.json", (tokenizer(recipe) + "\n").encode())
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": EOS, "mask_token": MASK_TOKEN,
        "unk_token": UNKNOWN,
    }  # fmt: skip
    write(folder / "tokenizer_config.json", (json.dumps(facts, indent=2) + "\n").encode())


def tokenizer(recipe: Recipe) -> str:
    """tokenizer.json of a tokenizer that knows the recipe's tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    special = (EOS, MASK_TOKEN, UNKNOWN)
    words = Tokenizer(models.WordLevel({c: i for i, c in enumerate((*recipe.tokens, *special))}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(recipe.pattern), "isolated")
    words.decoder = decoders.Fuse()
    words.add_special_tokens([AddedToken(token, special=True) for token in special])
    text: str = words.to_str(pretty=True)
    return text


def optimizers(recipe: Recipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network, AdamW for the rest; each step sets their learning rate.

    Of the two alone, Muon needs about half the steps for the same loss here, at a third more time a step.
    """
    inside = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers." in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "layers." not in name]
    muon: torch.optim.Optimizer
    if recipe.float32_muon:
        muon = Float32Muon(inside, lr=0.0, weight_decay=0.01)
    else:
        muon = torch.optim.Muon(inside, lr=0.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01), muon]


class Trainer:
    """One training run: weights, their running mean, the optimisers and its place in the data."""

    def __init__(self, recipe: Recipe, *, steps: int, seed: int, device: str, rate: float, scale: float) -> None:
        """``steps`` are shared among the recipe's phases as its own are; ``rate`` is a factor of its learning rates."""
        self.recipe, self.steps, self.seed = recipe, steps, seed
        self.device, self.rate, self.scale = device, rate, scale
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = network(recipe).to(device)
        self.mean = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimizers = optimizers(recipe, self.model)
        self.step = 0

    def phase(self) -> tuple[Phase, int, int]:
        """The phase of the current step, the step with which it begins, and the one before which it ends."""
        begin = done = 0
        for phase in self.recipe.phases:
            done += phase.steps
            end = round(self.steps * done / self.recipe.steps)
            if self.step < end:
                break
            begin = end
        return phase, begin, end

    def streams(self, curriculum: tuple[Source, ...]) -> list[tuple[Source, int, Iterator[Sequence]]]:
        """Each source with its rows of a batch, and the data as they continue from the current step."""
        # A resumed run reads on from a fresh seed for its step: nothing is read twice to get there.
        seed = 1009 * self.seed + 7919 * self.step
        return [
            (source, max(1, round(source.rows * self.scale)), self.recipe.stream(source, seed)) for source in curriculum
        ]

    def run(self, until: int, folder: Path, every: int, say: Any) -> None:
        begun, first = time.monotonic(), self.step
        streams: list[tuple[Source, int, Iterator[Sequence]]] = []
        while self.step < until:
            phase, begin, end = self.phase()
            if not streams or self.step % every == 0 or self.step == begin:
                streams = self.streams(phase.curriculum)
            if self.step % 50 == 0 or self.step in (first, begin):
                total, summed = torch.zeros(len(streams)), self.step
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            warm = min(1.0, (self.step - begin + 1) / 200)
            fall = (1 + math.cos(math.pi * (self.step - begin) / (end - begin))) / 2
            rate = self.rate * phase.learning_rate * warm * (0.02 + 0.98 * fall)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            self.model.zero_grad()
            for n, (source, rows, examples) in enumerate(streams):
                loss = self._loss([next(examples) for _ in range(rows)], generator)
                (source.weight * loss).backward()
                total[n] += loss.item()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            keep = min(0.999, self.step / (self.step + 10))
            with torch.no_grad():
                for name, value in self.model.state_dict().items():
                    self.mean[name].lerp_(value, 1 - keep)
            if self.step % 50 == 0 or self.step == until:
                spent = time.monotonic() - begun
                left = spent / (self.step - first) * (until - self.step)
                means = (total / (self.step - summed)).tolist()
                losses = " ".join(
                    f"{of.task}{i}={x:.3f}" for i, ((of, *_), x) in enumerate(zip(streams, means, strict=True))
                )
                say(f"step {self.step}/{self.steps}  {losses}  {spent:.0f} s, {left:.0f} s left")
            if self.step % every == 0 or self.step == until:
                self.save(folder)
                export(self.recipe, self.mean, folder)

    def _loss(self, rows: list[Sequence], generator: torch.Generator) -> Tensor:
        tokens, targets, real = (x.to(self.device) for x in batch(self.recipe, rows, generator))
        attention = None if bool(real.all()) else real
        logits = self.model(input_ids=tokens, attention_mask=attention).logits
        # Normalised by the rows' length, not by the masks drawn, so that a row with few masks does not weigh more.
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum") / (
            tokens.numel() / 2
        )

    def save(self, folder: Path) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"mean.{k}": v for k, v in self.mean.items()}
        for n, optimizer in enumerate(self.optimizers):
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{n}.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        save_tensors(folder / "training" / "state.safetensors", {k: v.clone() for k, v in tensors.items()})
        facts = {"step": self.step, "steps": self.steps, "seed": self.seed, "scale": self.scale, "rate": self.rate}
        write(folder / "training" / "state.json", json.dumps(facts).encode())

    def load(self, folder: Path) -> bool:
        """Continue from ``folder``; False where there is nothing of this run."""
        path = folder / "training" / "state.json"
        if not path.is_file():
            return False
        facts = json.loads(path.read_text())
        setup = {"steps": self.steps, "seed": self.seed, "scale": self.scale, "rate": self.rate}
        if {k: facts[k] for k in setup} != setup:
            raise click.ClickException(f"{path} is of another run ({facts}): choose another --out or the same options")
        tensors = load_file(folder / "training" / "state.safetensors", device=self.device)
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.mean = {k[5:]: v for k, v in tensors.items() if k.startswith("mean.")}
        for n, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{n}."):
                    _, _, i, name = key.split(".", 3)
                    state.setdefault(int(i), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.step = facts["step"]
        return True


@click.command(context_settings={"show_default": True})
@click.option("--model", "name", type=click.Choice(list(RECIPES)), default="tiny", help="Which of the embedded models.")
@click.option("--steps", type=int, default=None, help="Optimiser steps.  [default: the recipe's]")
@click.option("--seed", default=0)
@click.option("--learning-rate", default=1.0, help="As a factor of the recipe's.")
@click.option("--scale", default=1.0, help="Rows of a batch, as a factor of the curriculum's.")
@click.option("--device", default="cpu")
@click.option("--threads", default=0, help="CPU threads; 0: torch's own number.")
@click.option("--every", default=250, help="Steps between two savings.")
@click.option("--stop-after", default=0, help="Stop at this step (0: at the end); the same command goes on.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="Folder.  [default: the checkpoint in the package]"
)
def main(
    name: str, steps: int | None, seed: int, learning_rate: float, scale: float, device: str, threads: int,
    every: int, stop_after: int, out: Path | None,
) -> None:  # fmt: skip
    """Train an embedded model, or go on where a stopped run of the same options left off."""
    if threads:
        torch.set_num_threads(threads)
    recipe = RECIPES[name]
    steps = steps or recipe.steps
    folder = out or folder_of(name)
    trainer = Trainer(recipe, steps=steps, seed=seed, device=device, rate=learning_rate, scale=scale)
    if trainer.load(folder):
        click.echo(f"going on at step {trainer.step}")
    trainer.run(min(stop_after or steps, steps), folder, every, lambda line: click.echo(line))


if __name__ == "__main__":
    main()
