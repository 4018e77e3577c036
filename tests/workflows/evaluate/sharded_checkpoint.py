"""sharded_checkpoint.py MODEL FOLDER RANKS: the model as FSDP2 shards, in the files of verl's checkpoint manager."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def save_shard(rank: int, ranks: int, model_folder: str, actor: str, store: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoModelForCausalLM

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    model = fully_shard(AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), mesh=mesh)
    torch.save(model.state_dict(), Path(actor) / f"model_world_size_{ranks}_rank_{rank}.pt")
    dist.destroy_process_group()


def main(model_folder: str, folder: str, ranks: int) -> None:
    from transformers import AutoConfig, AutoTokenizer

    actor = Path(folder) / "actor"
    hugging = actor / "huggingface"
    hugging.mkdir(parents=True)
    AutoConfig.from_pretrained(model_folder).save_pretrained(hugging)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(hugging)
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    mp.spawn(save_shard, (ranks, model_folder, str(actor), str(Path(folder) / "store")), nprocs=ranks)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
