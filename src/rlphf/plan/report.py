"""`rlphf plan`: a table of what the steps of an experiment need of memory, before any of them runs."""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import logging

from rlphf.config import Experiment, load_layers
from rlphf.errors import InputError
from rlphf.files import read_yaml
from rlphf.plan.memory import Shape, shape_of
from rlphf.plan.steps import Need, Place, fitting, needs
from rlphf.settings import Backbone

GB = 10**9
PROMPT = 256
RESOURCE = "gpu_gb"


def backbone_config(settings: Backbone, path: Path | None = None) -> PretrainedConfig:
    """Return the configuration of the experiment's backbone, or the one in the file `path`; no weights are read.

    A model of the hub has to be in the local cache: a plan asks no network. Raises InputError where it is not, or for a file that
    is no configuration.
    """
    if path is None and settings.source == "train":
        from rlphf.train.backbone import llama_config

        return llama_config(settings, settings.vocabulary)
    if path is None and settings.source == "package":
        from rlphf.lm.package import gguf_file

        with TemporaryDirectory() as folder:
            return _read(gguf_file(settings, Path(folder)))
    name = path or settings.name or ""
    if path is not None and not Path(path).exists():
        raise InputError(f"--model-config: {path} is not there; name a config.json, or its folder")
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # Configurations have checks of their own, and errors of their own.
        if path is None and settings.source == "hub":
            raise InputError(
                f"backbone.name: {name} is not in the local cache of the hub; give --model-config path/to/config.json"
            ) from None
        where = f"--model-config: {name}" if path else f"backbone.name: {name}"
        raise InputError(f"{where} is no configuration of a model that transformers knows ({error})") from None


def backbone_shape(settings: Backbone, path: Path | None = None) -> Shape:
    """Return the sizes of the experiment's backbone, or of the model whose configuration is in the file `path`.

    Raises InputError as `backbone_config` does, and for a model that no plan can be made for.
    """
    config = backbone_config(settings, path)
    try:
        return shape_of(config)
    except MemoryError:
        raise
    except Exception as error:  # transformers and torch have errors of their own for models of other kinds, and for bad sizes.
        named = f"backbone.name: {settings.name}" if settings.name else f"backbone.source: {settings.source}"
        where = f"--model-config: {path}" if path else named
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{where}: no plan can be made for it; name a causal language model with attention ({reason})") from None


def _read(path: Path) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # The readers of GGUF pass on whatever a broken file leads them to.
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a GGUF language model ({reason}); get the file again") from None


def profile_memory(profile: Path) -> float:
    """Return the memory of a GPU, in GB, that a profile (a file, or its folder) names: `gpu_gb` of its `default-resources`."""
    path = profile if profile.is_file() else profile / "config.yaml"
    raw = read_yaml(path)[0]
    resources = (raw if isinstance(raw, dict) else {}).get("default-resources") or []
    named = resources if isinstance(resources, dict) else dict(str(entry).partition("=")[::2] for entry in resources)
    try:
        size = float(named[RESOURCE])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: default-resources names no {RESOURCE} as a number; add it, or give --gpu-gb") from None
    if not 0 < size < math.inf:
        raise InputError(f"{path}: {RESOURCE}: {size:g} is no number above zero; correct it, or give --gpu-gb")
    return size


def table(found: list[Need], gpu: float | None, main: float | None) -> list[str]:
    """Return the lines of the table; `gpu` and `main` are the bytes there are of both memories, None where that is not known."""
    lines = [
        f"{'step':<22} {'in':<4}" + "".join(f"{name:>12}" for name in ("weights", "trained", "cache", "activations", "total"))
    ]
    lines.append("-" * len(lines[0]))
    for need in found:
        there = gpu if need.on_gpu else main
        fits = "" if there is None else "  fits" if need.total <= there else "  does not fit"
        parts = (need.weights, need.trained, need.cache, need.activations, need.total)
        numbers = "".join(f"{value / GB:>12.2f}" for value in parts)
        lines.append(f"{need.step:<22} {'GPU' if need.on_gpu else 'RAM':<4}{numbers}{fits}")
    return lines


def advice(
    experiment: Experiment, shape: Shape, place: Place, found: list[Need], gpu: float | None, main: float | None
) -> list[str]:
    """Return a line for each step that does not fit: what it needs, what is there, and what would help."""
    lines = []
    for need in found:
        there = gpu if need.on_gpu else main
        if there is not None and need.total > there:
            help_ = fitting(experiment, shape, place, need, there)
            lines.append(f"{need.step}: needs {need.total / GB:.1f} GB, {there / GB:.1f} are there: {help_}")
    return lines


def plan_step(
    config: Sequence[Path],
    gpu_gb: float | None = None,
    gpus: int | None = None,
    profile: Path | None = None,
    cpu: bool = False,
    model_config: Path | None = None,
    prompt_tokens: int | None = None,
    strict: bool = False,
) -> None:
    """Print what each step of an experiment needs of memory, whether that is there, and what would make it fit.

    `config` are files, each laid over the one before, as Snakemake does. `gpus` is how many share a step that can be shared.
    The memory is that of a GPU of `gpu_gb` GB, of the GPU that `profile` names, or of this machine: its GPU, or with `cpu` or
    without one its RAM. Prompts have `prompt_tokens` tokens (256) at most. With `strict` raises InputError if a step does not.
    """
    experiment = load_layers(config)
    for name, value in (("gpu-gb", gpu_gb), ("gpus", gpus), ("prompt-tokens", prompt_tokens)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name}: {value:g} is no number above zero")
    if cpu and (gpu_gb is not None or profile is not None):
        raise InputError("--cpu: leaves no GPU to plan for; give it without --gpu-gb and --profile")
    logging.set_verbosity_error()
    gpu = gpu_gb if gpu_gb is not None else profile_memory(profile) if profile else None
    here = gpu is None
    if here and not cpu and torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0).total_memory / GB
    main = psutil.virtual_memory().total if here else None
    place = Place(gpu is not None, prompt_tokens or PROMPT, gpus or 1)
    shape = backbone_shape(experiment.backbone, model_config)
    found = needs(experiment, shape, place)
    there = gpu * GB if gpu is not None else None
    where = f"a GPU of {gpu:.1f} GB" if gpu is not None else f"a CPU with {(main or 0) / GB:.1f} GB"
    print(f"{experiment.experiment} on {where}: {shape.parameters:,} parameters, prompts of {place.prompt} tokens; in GB")
    print("\n".join(table(found, there, main)))
    print("Total: weights, trained, the larger of cache and activations, and 1 GB for libraries. Estimates at the longest texts.")
    missing = advice(experiment, shape, place, found, there, main)
    print("\n".join(missing) or "All steps fit." if there or main else "")
    if missing and strict:
        raise InputError(f"{config[-1]}: {len(missing)} of {len(found)} steps do not fit; see the lines above")
