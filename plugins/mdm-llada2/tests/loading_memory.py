"""Memory that loading takes: a made-up checkpoint of LLaDA2's layout, in shards, loaded in a process of its own.

    python loading_memory.py write FOLDER --dtype bfloat16 --gigabytes 2
    python loading_memory.py load FOLDER --dtype bfloat16

``load`` prints one JSON line: the weights' bytes, the largest private memory (anonymous pages, sampled) and the largest
resident set, which counts pages of mapped files too; each less what the process held before.
"""

from __future__ import annotations

import argparse
import json
import resource
import threading
import time
from pathlib import Path

HIDDEN, HEADS, KV_HEADS, HEAD, EXPERTS, EXPERT, VOCABULARY, SHARD = 1024, 16, 4, 64, 64, 256, 32768, 400 << 20


def write(folder: Path, dtype: str, gigabytes: float) -> None:
    """A checkpoint of about ``gigabytes``, in shards of ``SHARD`` bytes: weights lie in files in order of their names,
    as published ones do."""
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    layer = 3 * EXPERTS * HIDDEN * EXPERT * kind.itemsize
    layers = max(3, round(((int(gigabytes * 2**30)) - 2 * VOCABULARY * HIDDEN * kind.itemsize) / layer))
    config = {
        "architectures": ["LLaDA2MoeModelLM"], "model_type": "llada2_moe", "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN, "intermediate_size": 2048, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "num_experts": EXPERTS, "num_shared_experts": 1,
        "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "moe_intermediate_size": EXPERT,
        "first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "partial_rotary_factor": 0.5, "rope_theta": 600000,
        "mask_token_id": 5, "eos_token_id": 6, "pad_token_id": 6, "dtype": dtype,
    }  # fmt: skip
    shapes = {"model.word_embeddings.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for n in range(layers):
        here = {
            "attention.query_key_value": ((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN),
            "attention.dense": (HIDDEN, HEADS * HEAD), "attention.query_layernorm": (HEAD,),
            "attention.key_layernorm": (HEAD,), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
        }  # fmt: skip
        mlps = {"mlp": 2048} if n == 0 else {"mlp.shared_experts": EXPERT}
        if n:
            mlps |= {f"mlp.experts.{e}": EXPERT for e in range(EXPERTS)}
            here["mlp.gate"] = (EXPERTS, HIDDEN)
            shapes[f"model.layers.{n}.mlp.gate.expert_bias"] = (EXPERTS,)
        for name, width in mlps.items():
            here |= {f"{name}.{part}_proj": (width, HIDDEN) for part in ("gate", "up")}
            here[f"{name}.down_proj"] = (HIDDEN, width)
        shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in here.items()}
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    folder.mkdir(parents=True, exist_ok=True)
    shard: dict[str, torch.Tensor] = {}
    files: list[list[str]] = []

    def close() -> None:
        save_file(shard, folder / f"model-{len(files):05}.safetensors", metadata={"format": "pt"})
        files.append(list(shard))
        shard.clear()

    for name, shape in shapes.items():
        shard[name] = torch.full(shape, 0.01, dtype=torch.float32 if name.endswith("bias") else kind)
        if sum(weight.nbytes for weight in shard.values()) > SHARD:
            close()
    close()
    index = {name: f"model-{n:05}.safetensors" for n, names in enumerate(files) for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(config))


def private() -> int:
    """Bytes of anonymous memory of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) << 10


def load(folder: Path, dtype: str) -> dict[str, float]:
    """Load it and tell what that took."""
    import mdm
    import torch
    import transformers
    from transformers import Glm4MoeForCausalLM

    assert Glm4MoeForCausalLM  # imported before memory is counted
    torch.ones(8, 8) @ torch.ones(8, 8)
    before, before_peak = private(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    largest, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            largest[0] = max(largest[0], private())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    model = mdm.load_model(folder, device="cpu", dtype=dtype)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    held = {id(p): p.nbytes for module in (model.body, model.lm_head) for p in module.parameters()}
    weights = sum(held.values())
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before_peak
    return {
        "transformers": transformers.__version__, "seconds": round(seconds, 1), "weights": weights,
        "private": round((largest[0] - before) / weights, 3), "resident": round(peak / weights, 3),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["write", "load"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    asked = parser.parse_args()
    if asked.what == "write":
        write(asked.folder, asked.dtype, asked.gigabytes)
    else:
        print(json.dumps(load(asked.folder, asked.dtype)))
