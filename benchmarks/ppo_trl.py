"""The other side of `ppo.py`: TRL 1.12.0's PPOTrainer, run by the environment that `requirements-trl.txt` describes.

It imports nothing of this project that needs more than the standard library.
"""

import time
from typing import Any

from benchmarks.child import cpu_seconds, resident_mb
from benchmarks.models import LORA
from rlphf.files import read_json


def theirs(
    model: str,
    classifier: str,
    prompts: str,
    batch: int,
    mini: int,
    epochs: int,
    tokens: int,
    updates: int,
    dtype: str,
    critic: str,
    folder: str,
) -> dict[str, Any]:
    """Side: updates of TRL's trainer on the first `batch` prompts; the first one is not timed.

    `critic` "frozen" trains the value model's head alone, "whole" the value model as it is.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    libraries = resident_mb()
    kind = getattr(torch, dtype)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left", trust_remote_code=False)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=kind, use_safetensors=True, trust_remote_code=False)
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(
            classifier, num_labels=1, dtype=kind, use_safetensors=True, trust_remote_code=False
        )
        for _ in range(2)
    )
    if critic == "frozen":
        value.requires_grad_(False)
        value.score.requires_grad_(True)
    reward.requires_grad_(False).eval()
    moments: list[tuple[float, float]] = []

    class Times(TrainerCallback):
        """Notes wall and CPU seconds at the end of every update."""

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            moments.append((time.perf_counter(), cpu_seconds()))

    settings = PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_mini_batches=batch // mini,
        num_ppo_epochs=epochs,
        local_rollout_forward_batch_size=batch,
        total_episodes=batch * (updates + 1),
        response_length=tokens,
        temperature=0.7,
        learning_rate=1e-5,
        kl_coef=0.2,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    data = Dataset.from_dict({"input_ids": read_json(prompts)[:batch]})
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=data,
        eval_dataset=data,
        peft_config=LoraConfig(
            r=LORA["rank"], lora_alpha=LORA["alpha"], lora_dropout=0.0, target_modules=LORA["targets"], task_type="CAUSAL_LM"
        ),
        callbacks=[Times()],
    )
    trainer.train()
    seconds, used = ([after[i] - before[i] for before, after in zip(moments, moments[1:], strict=False)] for i in range(2))
    return {"seconds": seconds, "cpu_seconds": used, "libraries_mb": libraries}
