"""The keys of the configuration as a user meets them: their list, what each may hold, and which one was meant."""

import argparse
import ast
import dataclasses
import difflib
import functools
import inspect
import io
import shutil
import textwrap
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.schema import Range, optional, written
from jaxnets.schema import keys as schema_keys

# What other programs call a key, or a part of one; each stands for the keys that end so, as far as there are any.
_SYNONYMS = {
    "augment.policy.name": "policy aa auto_augment autoaugment rand_augment randaugment trivialaugment ta_wide",
    "best": "monitor metric metric_for_best_model early_stopping_metric",
    "class_weights": "class_weight pos_weight loss_weights weighted_loss",
    "data.balance": "oversample oversampling balanced_sampling weighted_sampler sampler",
    "logit_adjustment": "logit_adjust tau prior balanced_softmax",
    "patience": "early_stopping early_stop early_stopping_patience es_patience",
    "single_output": "binary sigmoid_output",
    "accumulate_steps": "accumulate accumulation accum_iter grad_accum grad_accum_steps gradient_accumulation_steps",
    "batch_size": "batch bs train_batch_size b",
    "channels": "in_chans in_channels num_channels",
    "clip_norm": "clip clip_grad grad_clip max_grad_norm gradient_clip_val",
    "crop_fraction": "crop_pct crop",
    "data.directory": "data_dir",
    "data.source": "data dataset data_path dataset_path path root",
    "data.threads": "workers num_workers j",
    "data.validation": "val valid val_split validation_split val_size",
    "dropout": "drop drop_rate dropout_rate",
    "dtype": "amp fp16 bf16 half precision mixed_precision",
    "distill.teacher": "teacher kd_model kd_model_name teacher_model teacher_path",
    "distill.temperature": "kd_temperature",
    "distill.weight": "distill_loss_weight kd_weight kd_alpha",
    "distill.task_weight": "task_loss_weight",
    "ema.decay": "ema ema_decay model_ema model_ema_decay averaging",
    "ema.every_steps": "model_ema_steps",
    "ema.warmup": "model_ema_warmup ema_warmup",
    "epochs": "epoch num_epochs n_epochs max_epochs num_train_epochs nb_epochs",
    "eval_batch_size": "val_batch_size validation_batch_size test_batch_size",
    "eval_every_steps": "eval_steps eval_interval val_interval",
    "flip.horizontal": "flip hflip horizontal_flip mirror",
    "freeze.before": "freeze frozen freeze_backbone freeze_at freeze_to frozen_stages trainable",
    "freeze.stage_epochs": "gradual_unfreezing",
    "freeze.thaw_epoch": "thaw unfreeze unfreeze_epoch freeze_epochs",
    "freeze.layers": "freeze_layers",
    "head_rate": "head_lr head_learning_rate head_lr_mult classifier_lr",
    "pad_and_crop.padding": "crop_padding padding pad random_crop",
    "mix.mixup": "mixup mixup_alpha",
    "loss.name": "loss criterion",
    "keep_checkpoints": "save_total_limit save_top_k checkpoint_hist keep_last_n max_to_keep",
    "layer_decay": "llrd layer_wise_decay layerwise_decay",
    "image_size": "size img_size imgsz imgs input_size resolution res image_dim",
    "label_smoothing": "smoothing smooth",
    "learning_rate": "lr base_lr max_lr initial_lr lr0 rate",
    "log_every_steps": "log_interval log_steps logging_steps",
    "max_hours": "max_time time_limit hours",
    "model.name": "arch architecture backbone model network net",
    "num_classes": "classes nb_classes n_classes nc",
    "optimizer.name": "opt optim optimizer",
    "pretrained": "weights checkpoint init finetune",
    "schedule.name": "sched scheduler lr_scheduler schedule",
    "seed": "random_seed random_state",
    "steps": "max_steps num_steps iterations max_iter iters",
    "stochastic_depth": "drop_path drop_path_rate drop_connect",
    "warmup_epochs": "warmup warm_up",
    "warmup_start": "warmup_lr warmup_lr_init warmup_factor",
    "weight_decay": "wd decay l2",
    "adaptive_clip": "agc clip_mode",
    "decay_on": "norm_weight_decay no_bias_decay",
    "every_epochs": "decay_epochs",
    "exponential.factor": "decay_rate",
    "learning_rate_per_256": "lr_base lr_per_256",
    "milestone_epochs": "decay_milestones lr_milestones lr_steps",
    "optimizer.sam": "rho sam_rho",
    "one_cycle.rise": "pct_start",
}


TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Key:
    """A key with its full name, such as "optimizer.learning_rate"."""

    name: str
    kind: type
    restraint: Any  # of `schema.keys`
    default: Any
    optional: bool  # it may be None
    comment: str  # what config.py says of it

    @property
    def form(self) -> str:
        """What it may hold, in words."""
        words = {int: "a whole number", float: "a number", bool: "true or false", tuple: "numbers", str: "a text"}
        if isinstance(self.restraint, tuple):
            form = "one of " + ", ".join(map(str, self.restraint))
        elif isinstance(self.restraint, Range):
            form = f"{words[self.kind]}, {self.restraint}"
        elif self.restraint is str:
            form = "names, with commas between them"
        else:
            form = words.get(self.kind) or str(self.restraint or self.kind.__name__)
        return form + (", or None" if self.optional else "")

    @property
    def example(self) -> str:
        """A value, as it would be written on a command line."""
        if self.default is not None:
            return written(self.default)
        if isinstance(self.restraint, tuple):
            return str(self.restraint[0])
        if isinstance(self.restraint, Range):
            candidates = (1, 0.5) if self.kind is float else (max(1, int(self.restraint.low)),)
            return next(str(x) for x in candidates if x in self.restraint)
        return {int: "1", float: "0.5", bool: "true", tuple: "0.5,0.5,0.5"}.get(self.kind, "None")

    def parse(self, text: str) -> Any:
        """Returns the value that a text on the command line means; the schema judges whether it may be that.

        Raises:
            UserError: for a text that is no such value.
        """
        if text.strip().lower() == "none" and self.optional:
            return None
        try:
            return _parse(self.kind, text, self.restraint)
        except (ValueError, SyntaxError, OverflowError) as error:
            raise UserError(
                f"config.{self.name} must be {self.form}, found {text!r}: write for instance "
                f"--config.{self.name}={self.example}"
            ) from error


def _parse(kind: type, text: str, restraint: Any) -> Any:
    if kind is str:
        return text
    if kind is bool:
        if text.strip().lower() not in TRUTHS:
            raise ValueError(text)
        return TRUTHS[text.strip().lower()]
    if kind is int:
        try:
            return int(text)
        except ValueError:
            if not float(text).is_integer():  # 1e6 is a whole number too
                raise
            return int(float(text))
    if kind is float:
        return float(text)
    if kind is tuple and restraint is str:
        if text[:1] + text[-1:] in ("()", "[]"):  # not those of a pattern: stage[12]
            text = text[1:-1]
        return tuple(name.strip(" '\"") for name in text.split(",") if name.strip(" '\""))
    if kind is tuple:
        value = ast.literal_eval(text)
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@functools.cache
def all_keys() -> dict[str, Key]:
    """Returns every key by its full name, in the order of the schema."""
    return {key.name: key for key in _walk(Config())}


def groups() -> set[str]:
    """Returns the names of the groups of keys."""
    return {name.rpartition(".")[0] for name in all_keys()} - {""}


def _walk(spec: Any, prefix: str = "") -> Iterator[Key]:
    comments = _comments(type(spec))
    nested, may_be_none = [], optional(type(spec))
    for name, kind, restraint in schema_keys(type(spec)):
        value = getattr(spec, name)
        if dataclasses.is_dataclass(value):
            nested.append((value, f"{prefix}{name}."))
        else:
            yield Key(prefix + name, kind, restraint, value, name in may_be_none, comments.get(name, ""))
    for value, below in nested:
        yield from _walk(value, below)


def _comments(spec_type: type) -> dict[str, str]:
    """Returns what the comments of a dataclass say of its fields: the one that follows a field, or those above it."""
    try:
        source = textwrap.dedent(inspect.getsource(spec_type))
    except OSError:  # a program without its source
        return {}
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            comments[token.start[0]] = (alone, token.string.removeprefix("#").strip())
    found = {}
    definition = ast.parse(source).body[0]
    for entry in definition.body if isinstance(definition, ast.ClassDef) else ():
        if not isinstance(entry, ast.AnnAssign) or not isinstance(entry.target, ast.Name):
            continue
        said = [comments[line][1] for line in range(entry.lineno, (entry.end_lineno or 0) + 1) if line in comments]
        line = entry.lineno - 1
        while not said and comments.get(line, (False,))[0]:
            while comments.get(line, (False,))[0]:
                said.insert(0, comments[line][1])
                line -= 1
        found[entry.target.id] = " ".join(said)
    return found


class ConfigParser(argparse.ArgumentParser):
    """Parses a command line that takes a config's keys, and lists them in its help."""

    def format_help(self) -> str:
        return f"{super().format_help()}\n{describe_keys()}"


def describe_keys() -> str:
    """Returns the list of all keys by group, for `--help`."""
    width = max(40, min(shutil.get_terminal_size().columns, 120))
    lines = ["keys of the config, each changed by --config.KEY=VALUE:"]
    group = ""
    for key in all_keys().values():
        if key.name.rpartition(".")[0] != group:
            group = key.name.rpartition(".")[0]
            lines += ["", group]
        value = "None" if key.default is None else written(key.default)
        lines += textwrap.wrap(
            f"{key.name}={value}  ({key.form})", width, initial_indent="  ", subsequent_indent=" " * 8
        )
        lines += textwrap.wrap(key.comment, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def meant(name: str) -> list[str]:
    """Returns the full names of the keys that `name` may stand for, at most three, the likeliest first."""
    keys = list(all_keys())
    name = name.strip().lower().replace("-", "_")
    if name in keys:
        return [name]
    last = name.rpartition(".")[2]
    endings = [last, *(real for real, others in _SYNONYMS.items() if last in others.split())]
    if name != last:  # the group may be the synonym: model.lr and optim.lr both mean the one rate
        endings += [real for real, others in _SYNONYMS.items() if name.replace(".", "_") in others.split()]
    found = [key for ending in endings for key in keys if f".{key}".endswith(f".{ending}")]
    if not found:
        found = [key for key in keys if f".{key}".find(f".{last}.") >= 0]  # a group of that name
    if not found:
        alike = [*difflib.get_close_matches(name, keys, 2, 0.7), *_alike(last, keys)]
        found = alike or difflib.get_close_matches(name, keys, 1, 0.6)
    return list(dict.fromkeys(found))[:3]


def _alike(last: str, keys: Iterable[str]) -> list[str]:
    ends = {key.rpartition(".")[2] for key in keys}
    close = difflib.get_close_matches(last, sorted(ends), 1, 0.7)
    return [key for key in keys if key.rpartition(".")[2] in close]


def did_you_mean(name: str, value: str | None = None, before: str = "config.") -> str:
    """Returns `" (did you mean config.optimizer.learning_rate?)"`, or an empty string where no key is alike."""
    end = "" if value is None else f"={value}"
    found = " or ".join(f"{before}{key}{end}" for key in meant(name))
    return f" (did you mean {found}?)" if found else ""
