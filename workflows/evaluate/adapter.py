"""adapter.py FOLDER: adds the adapter in FOLDER/lora_adapter to the weights beside it, as W + s B A in float32.

verl's merger takes a checkpoint with LoRA apart: the base model, which alone is no trained model, and the adapter.
"""

from __future__ import annotations

import sys
from pathlib import Path

ADAPTER = "lora_adapter"


def add_adapter(folder: Path) -> None:
    """Replace the weights in `folder`; the adapter stays."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    whole = PeftModel.from_pretrained(base, str(folder / ADAPTER)).merge_and_unload()
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        file.unlink()
    whole.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    add_adapter(Path(sys.argv[1]))
