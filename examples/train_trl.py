"""DPO with TRL as the command of ``policy: {kind: command}`` (docs/training.md): a LoRA, which judgeloop has the policy's server load.

    policy:
      kind: command
      endpoint: policy
      command: [python, /path/to/train_trl.py, --base, /models/base]

Needs torch, transformers, peft and trl. The server, vLLM, is started with ``--enable-lora`` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def main() -> None:
    """Train on preferences.jsonl in the working directory as training.json says, and write model.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True, help="folder or name of the base model")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    settings = json.loads(Path("training.json").read_text(encoding="utf-8"))
    pairs = [json.loads(line) for line in Path("preferences.jsonl").read_text(encoding="utf-8").splitlines()]
    trainer = trained(arguments, settings, pairs)
    trainer.model.save_pretrained("adapter", selected_adapters=["default"])
    metrics = {key: value for key, value in trainer.state.log_history[-1].items() if isinstance(value, int | float)}
    Path("model.json").write_text(json.dumps({"adapter": "adapter", "metrics": metrics}), encoding="utf-8")


def trained(arguments: argparse.Namespace, settings: dict[str, Any], pairs: list[dict[str, Any]]) -> DPOTrainer:
    """The trainer after training: from the last generation's adapter, or from the base model where ``reference`` is base."""
    model = AutoModelForCausalLM.from_pretrained(arguments.base)
    adapter = settings.get("adapter") if settings["reference"] == "previous" else None
    if adapter:
        # Trained on, so that it stays the whole change from the base; TRL takes a copy of it as the reference of the loss.
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    config = DPOConfig(
        output_dir="checkpoints", save_strategy="no", report_to="none", use_cpu=arguments.cpu, seed=settings["seed"] % 2**32,
        beta=arguments.beta, learning_rate=arguments.learning_rate, num_train_epochs=arguments.epochs,
        per_device_train_batch_size=4, logging_steps=1, bf16=True,
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    rows = [{key: as_messages(pair[key], role) for key, role in ROLES.items()} for pair in pairs]
    trainer = DPOTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(rows),
        peft_config=None if adapter else lora,
        processing_class=AutoTokenizer.from_pretrained(arguments.base),
    )  # fmt: skip
    trainer.train()
    return trainer


ROLES = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}


def as_messages(value: str | list[dict[str, str]], role: str) -> list[dict[str, str]]:
    """Turns as they are; a text as one turn, so that the model's chat template is applied."""
    return [{"role": role, "content": value}] if isinstance(value, str) else value


if __name__ == "__main__":
    main()
