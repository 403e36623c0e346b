"""Trains the embedded model: ``python -m mdm_tiny.train``. Seeded, resumable, on CPU or GPU.

The data are made by the installed tasks, found by name: examples in the compact style, with seeds that no evaluation
uses. The objective is LLaDA's (arXiv:2502.09992): a rate t is drawn for each row, every response token is masked with
probability t, and the masked ones are predicted.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from mdm import registry
from mdm.protocols import MASK
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from mdm_tiny import checkpoint

CHARACTERS = "0123456789+-*/=,:()?._ \nabcdefghijklmnopqrstuvwxyz"
EOS, MASK_TOKEN, UNKNOWN = "<|eos|>", "<|mask|>", "<|unknown|>"
EOS_ID, MASK_ID = len(CHARACTERS), len(CHARACTERS) + 1
VOCABULARY = 64
WIDTH, LAYERS, HEADS, INNER = 128, 4, 4, 384
TRAINING_SEED = 1_000_000_007
"""Added to the seed of the data; evaluations use small seeds."""

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

CURRICULUM: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("sudoku", {"mode": "infill"}, 24),
    ("sudoku", {"mode": "generate"}, 4),
    ("countdown", {"numbers": 3}, 12),
    ("countdown", {"numbers": 4}, 2),
    ("equations", {"operation": "product"}, 96),
    ("equations", {"operation": "sum"}, 8),
)
"""Task, options, and rows of each step's batch."""


@dataclass(frozen=True)
class Sequence:
    ids: tuple[int, ...]
    first: int
    """where the response begins"""


def encode(text: str) -> list[int]:
    return [CHARACTERS.index(c) for c in text]


def stream(task: str, options: dict[str, Any], seed: int) -> Iterator[Sequence]:
    """Training sequences of one task, endless."""
    kind = registry.resolve("task", task)
    maker = kind(kind.Options.model_validate(options))
    for example in maker.examples(seed=TRAINING_SEED + seed):
        prompt = maker.prompt(example, "compact")
        context = encode(prompt.context)
        answer = encode(example.reference)
        if prompt.gen_length:
            answer += [EOS_ID] * (prompt.gen_length - len(answer))
        elif len(answer) != len(prompt.answer.replace(MASK, "_")):
            raise AssertionError(f"{example.id}: the reference does not fit the infill")
        yield Sequence((*context, *answer), len(context))


def batch(rows: list[Sequence], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noised tokens, targets (-100 where nothing is asked) and real positions, each ``[B, L]``."""
    length = max(len(r.ids) for r in rows)
    tokens = torch.tensor([[*r.ids, *[EOS_ID] * (length - len(r.ids))] for r in rows])
    at = torch.arange(length)
    real = at < torch.tensor([len(r.ids) for r in rows])[:, None]
    response = real & (at >= torch.tensor([r.first for r in rows])[:, None])
    rate = torch.rand(len(rows), 1, generator=generator)
    masked = response & (torch.rand(tokens.shape, generator=generator) < rate)
    return tokens.masked_fill(masked, MASK_ID), tokens.masked_fill(~masked, -100), real


def network() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, intermediate_size=INNER, max_position_embeddings=256, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=False,
    )  # fmt: skip
    config.is_causal = False
    return LlamaForCausalLM(config)


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


def export(weights: dict[str, Tensor], folder: Path) -> None:
    """A checkpoint in LLaDA's format: config.json, model.safetensors and the character tokenizer."""
    renamed = {}
    for name, tensor in weights.items():
        for llama, llada in NAMES.items():
            name = name.replace(llama + ".", llada + ".")
        renamed[name.replace("model.layers.", "model.transformer.blocks.")] = tensor.float()
    save_tensors(folder / "model.safetensors", renamed)
    config = {
        "activation_type": "silu", "alibi": False, "architectures": ["LLaDAModelLM"], "attention_dropout": 0.0,
        "attention_layer_norm": False, "block_group_size": 1, "block_type": "llama", "d_model": WIDTH,
        "embedding_size": VOCABULARY, "eos_token_id": EOS_ID, "include_bias": False, "include_qkv_bias": False,
        "input_emb_norm": False, "layer_norm_type": "rms", "layer_norm_with_affine": True, "mask_token_id": MASK_ID,
        "max_sequence_length": 256, "mlp_hidden_size": INNER, "model_type": "llada", "n_heads": HEADS,
        "n_kv_heads": HEADS, "n_layers": LAYERS, "pad_token_id": EOS_ID, "prompt_style": "compact",
        "rms_norm_eps": 1e-05, "rope": True, "rope_theta": 10000.0, "scale_logits": False, "torch_dtype": "float32",
        "use_cache": False, "vocab_size": VOCABULARY, "weight_tying": False,
    }  # fmt: skip
    write(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    write(folder / "tokenizer.json", (tokenizer() + "\n").encode())
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": EOS, "mask_token": MASK_TOKEN,
        "unk_token": UNKNOWN,
    }  # fmt: skip
    write(folder / "tokenizer_config.json", (json.dumps(facts, indent=2) + "\n").encode())


def tokenizer() -> str:
    """tokenizer.json of a tokenizer that knows single characters."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    special = (EOS, MASK_TOKEN, UNKNOWN)
    characters = Tokenizer(models.WordLevel({c: i for i, c in enumerate((*CHARACTERS, *special))}, unk_token=UNKNOWN))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    characters.add_special_tokens([AddedToken(token, special=True) for token in special])
    text: str = characters.to_str(pretty=True)
    return text


def optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network, AdamW for the rest.

    Of the two alone, Muon needs about half the steps for the same loss here, at a third more time a step.
    """
    inside = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers." in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "layers." not in name]
    return [
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
        torch.optim.Muon(inside, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]


class Trainer:
    """One training run: weights, their running mean, the optimisers and its place in the data."""

    def __init__(self, *, steps: int, seed: int, device: str, rate: float, scale: float) -> None:
        self.steps, self.seed, self.device, self.rate, self.scale = steps, seed, device, rate, scale
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = network().to(device)
        self.mean = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimizers = optimizers(self.model, rate)
        self.step = 0

    def streams(self) -> list[tuple[Iterator[Sequence], int]]:
        """The data as they continue from the current step."""
        out = []
        for task, options, rows in CURRICULUM:
            rows = max(1, round(rows * self.scale))
            # A resumed run reads on from a fresh seed for its step: nothing is read twice to get there.
            out.append((stream(task, options, 1009 * self.seed + 7919 * self.step), rows))
        return out

    def run(self, until: int, folder: Path, every: int, say: Any) -> None:
        begun, first = time.monotonic(), self.step
        streams = self.streams()
        total = torch.zeros(len(streams))
        while self.step < until:
            if self.step % every == 0:
                streams = self.streams()
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            warm = min(1.0, (self.step + 1) / 200)
            rate = self.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * self.step / self.steps)) / 2)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            self.model.zero_grad()
            for n, (source, rows) in enumerate(streams):
                loss = self._loss([next(source) for _ in range(rows)], generator)
                loss.backward()
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
                count = (self.step - 1) % 50 + 1
                losses = " ".join(
                    f"{task}{i}={x:.3f}"
                    for i, ((task, *_), x) in enumerate(zip(CURRICULUM, total / count, strict=True))
                )
                say(f"step {self.step}/{self.steps}  {losses}  {spent:.0f} s, {left:.0f} s left")
                total.zero_()
            if self.step % every == 0 or self.step == until:
                self.save(folder)
                export(self.mean, folder)

    def _loss(self, rows: list[Sequence], generator: torch.Generator) -> Tensor:
        tokens, targets, real = (x.to(self.device) for x in batch(rows, generator))
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
@click.option("--steps", default=12000, help="Optimiser steps.")
@click.option("--seed", default=0)
@click.option("--learning-rate", default=3e-3)
@click.option("--scale", default=1.0, help="Rows of a batch, as a factor of the curriculum's.")
@click.option("--device", default="cpu")
@click.option("--threads", default=0, help="CPU threads; 0: torch's own number.")
@click.option("--every", default=250, help="Steps between two savings.")
@click.option("--stop-after", default=0, help="Stop at this step (0: at the end); the same command goes on.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="Folder (default: the package's checkpoint)."
)
def main(
    steps: int, seed: int, learning_rate: float, scale: float, device: str, threads: int, every: int,
    stop_after: int, out: Path | None,
) -> None:  # fmt: skip
    """Train mdm-tiny, or go on where a stopped run of the same options left off."""
    if threads:
        torch.set_num_threads(threads)
    folder = out or Path(checkpoint())
    trainer = Trainer(steps=steps, seed=seed, device=device, rate=learning_rate, scale=scale)
    if trainer.load(folder):
        click.echo(f"going on at step {trainer.step}")
    trainer.run(min(stop_after or steps, steps), folder, every, lambda line: click.echo(line))


if __name__ == "__main__":
    main()
