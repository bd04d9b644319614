"""A trained model that answers, and says why: what `jaxnets.load` returns."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float32, UInt8

from jaxnets.answer import Answer, activated, read_row, said
from jaxnets.data.given import Given, as_image, as_images
from jaxnets.engine.runtime import Computed, Engine, EngineName, checksum, open_engine
from jaxnets.errors import UserError, nearest
from jaxnets.explain.explainer import Explainer
from jaxnets.explain.methods import METHODS
from jaxnets.explain.overlay import Panel
from jaxnets.explain.place import to_image
from jaxnets.models.family import Variables
from jaxnets.models.forward import Activation, forward, profile
from jaxnets.preprocess import Preprocess
from jaxnets.trust.outliers import Spread, energy
from jaxnets.trust.refusal import Refusal

EXPLAINED = 4  # labels of one answer, at most
_COARSE = 400  # places of a stage, up to which a map of it is seen as it is


@dataclass(frozen=True, repr=False)
class Explanation:
    """What `Classifier.explain_batch` says of one image."""

    heat: Float32[np.ndarray, "h w"]  # 0…1; where the method is signed −1…1, below 0 what speaks against the class
    label: int
    probability: float
    said: bool | None = None  # where an image may have several labels, whether the answer holds this one
    method: str = "gradcam"
    peak: float = 1.0  # what 1 stands for, in the method's unit
    fine: bool = False  # whether its grains are too small to be seen, so that drawings smooth it

    @property
    def remark(self) -> str:
        """What a caption says beside label and probability."""
        return ", not said" if self.said is False else ""

    def panel(self, labels: Sequence[str]) -> Panel:
        """Returns the map as a sheet draws it, with the names of the classes."""
        method = METHODS[self.method]
        return Panel(
            heat=self.heat,
            caption=(method.title, f"{labels[self.label]}  {self.probability:.1%}{self.remark}"),
            peak=self.peak,
            unit=method.unit,
            signed=method.signed,
            fine=self.fine,
            by_pixels=not (method.by_stage or method.attends),
        )

    def __repr__(self) -> str:
        rows, columns = self.heat.shape
        return f"Explanation(label={self.label}, probability={self.probability:.4f}, heat=[{rows}, {columns}])"


@dataclass(frozen=True, repr=False)
class Classifier:
    """A model with its weights, its preprocessing and the names of its classes."""

    name: str
    model: nn.Module
    variables: Variables
    preprocess: Preprocess
    labels: tuple[str, ...]
    step: int | None  # of the checkpoint that the weights come from; None: they are no run's
    matmul_precision: str = "default"  # as in training
    activation: Activation = "softmax"  # that turns logits into probabilities
    several_labels: bool = False  # whether an image may have several, or none
    thresholds: tuple[float, ...] | None = None  # probabilities from which on each of several is said; None: one half
    temperature: float | None = None  # divides the logits before they become probabilities; None: 1
    refusal: Refusal | None = None  # when the answer is "none of these"; None: never
    spread: Spread | None = None  # of the training images, where refusal has a bound of the distance from them
    engine_name: EngineName = "auto"  # ONNX Runtime on a CPU where it is installed, else JAX
    engine_folder: Path | None = None  # where graphs for ONNX Runtime are kept; None: in the user's cache
    engine_threads: int | None = None  # of ONNX Runtime; None: one for each core
    observed: bool = False  # whether the engine computes embeddings beside its answers, for `rows_and_more`

    def predict(self, images: Given | Iterable[Given], *, batch_size: int = 64) -> Float32[np.ndarray, "n classes"]:
        """Returns each image's probabilities over `labels`; of one image, one row.

        Args:
            images: one image, a list or an iterator of images (one at a time is held at its full size), or one array
                `[n, h, w, c]` or `[n, h, w]`. An image is a path, one of Pillow's, or a uint8 array `[h, w]`,
                `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]`, of any size; it is resized and cropped as evaluation does.
            batch_size: images that go through the model at once, at most.

        Raises:
            ValueError: if an image has another shape or dtype, or an array could be read in two ways.
            CorruptImage: if a file cannot be decoded.
        """
        return self._in_batches(self.engine.probabilities, images, batch_size, len(self.labels))

    def answer(self, images: Given | Iterable[Given], *, batch_size: int = 64) -> list[Answer]:
        """Returns what each image is said to be: its labels, or why it has none; arguments and errors as for `predict`.

        Where bounds were chosen for the model (`python -m jaxnets.evaluate --precision 0.95 --familiar`), an image
        beyond them has no label and a `reason`; all bounds are looked at, those of energy and distance too.
        """
        return [read_row(self, row) for row in self.rows(images, batch_size=batch_size)]

    def rows(self, images: Given | Iterable[Given], *, batch_size: int = 64) -> Float32[np.ndarray, "n columns"]:
        """Returns each image's row, for `jaxnets.answer`: its probabilities and the scores that have bounds."""
        columns = len(self.labels) + (len(self.refusal.scores) if self.refusal else 0)
        return self._in_batches(self.rows_of_fitted, images, batch_size, columns)

    def rows_of_fitted(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b columns"]:
        """Returns the rows of images that `preprocess.fit` has brought to size."""
        wanted = self.refusal.scores if self.refusal else ()
        if not wanted:
            return self.engine.probabilities(images)
        return self._rows(self.engine.computed(images))

    def rows_and_more(
        self, images: UInt8[np.ndarray, "b h w c"]
    ) -> tuple[Float32[np.ndarray, "b columns"], Float32[np.ndarray, " b"], Float32[np.ndarray, "b f"]]:
        """Returns the rows of fitted images, the energy of each and its embedding, of one pass; of an observed model.

        Raises:
            ValueError: if the engine was not opened for it.
        """
        found = self.engine.computed(images)
        if found.embedding is None:
            raise ValueError("the engine computes no embeddings: ask observing() of the classifier")
        energies = energy(found.logits, self.activation, self.temperature)
        return self._rows(found), energies.astype(np.float32), found.embedding

    def _rows(self, found: Computed) -> Float32[np.ndarray, "b columns"]:
        scores = []
        for name in self.refusal.scores if self.refusal else ():
            if name == "energy":
                scores.append(energy(found.logits, self.activation, self.temperature))
            else:
                assert self.spread is not None  # read with the bound
                assert found.profile is not None  # the engine was opened for them
                scores.append(self.spread.distances(found.profile))
        probabilities = activated(found.logits, self.activation, self.temperature)
        return np.concatenate([probabilities, *(score[:, None] for score in scores)], 1, dtype=np.float32)

    def labels_of(self, probabilities: Float32[np.ndarray, "*n classes"]) -> list[tuple[str, ...]]:
        """Returns the answer to each image: the names of the labels that it is said to have, the most probable first.

        It is one label, or where an image may have several those whose probability is above their threshold: any number
        of them, or none. An image whose probability is below the model's bound has none. Bounds of energy and distance
        cannot be looked at here: `answer` does.

        Args:
            probabilities: as `predict` returns them, or one row of them, for a list of one answer.
        """
        rows = np.atleast_2d(probabilities)
        if rows.ndim != 2 or rows.shape[1] != len(self.labels):
            raise ValueError(
                f"expected probabilities [n, {len(self.labels)}], as predict returns them, found {list(rows.shape)}"
            )
        return [tuple(self.labels[number] for number in said(self, row)) for row in rows]

    def embed(self, images: Given | Iterable[Given], *, batch_size: int = 64) -> Float32[np.ndarray, "n f"]:
        """Returns the vector that the model's head sees of each image; arguments and errors as for `predict`."""
        return self._in_batches(self.embed_fitted, images, batch_size, None)

    def embed_fitted(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b f"]:
        """Returns the vectors of images that `preprocess.fit` has brought to size."""
        return self._computed(self._embed, images)

    def profile_fitted(self, images: UInt8[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b f"]:
        """Returns the profiles (`models.forward.profile`) of images that `preprocess.fit` has brought to size."""
        return self._computed(self._profile, images)

    def _computed(self, program: Callable[[Variables, np.ndarray], jax.Array], images: np.ndarray) -> np.ndarray:
        # Padded to a power of two, so that few programs serve batches of every size.
        padding = (1 << (len(images) - 1).bit_length()) - len(images)
        padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
        with jax.default_matmul_precision(self.matmul_precision):
            return np.asarray(program(self.variables, padded))[: len(images)]

    def _in_batches(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        images: Given | Iterable[Given],
        batch_size: int,
        columns: int | None,
    ) -> np.ndarray:
        fitted = [self.preprocess.fit(image) for image in as_images(images, self.preprocess.white_level)]
        if not fitted:
            return np.zeros((0, self.embed_fitted(self._blank).shape[1] if columns is None else columns), np.float32)
        starts = range(0, len(fitted), batch_size)
        return np.concatenate([function(np.stack(fitted[start : start + batch_size])) for start in starts])

    @property
    def _blank(self) -> UInt8[np.ndarray, "1 h w c"]:
        p = self.preprocess
        return np.zeros((1, p.height, p.width, p.channels), np.uint8)

    def explain(
        self,
        image: Given,
        label: str | int | None = None,
        stage: str | None = None,
        *,
        method: str | None = None,
    ) -> Float32[np.ndarray, "h w"]:
        """Returns which places of an image speak for a class, 0…1 with 1 at the peak.

        Args:
            image: one, as for `predict`; the map has its height and width, and is 0 where the crop does not reach.
            label: the class, by name or number; None for the most probable.
            stage: whose output is asked, "stage1" and so on; None for the last, which is the coarsest. For those of
                the methods that look at one.
            method: "gradcam", "gradcam++", "layercam", "rollout", "integrated_gradients", "smoothgrad", "occlusion", or
                "shap" (`jaxnets.explain.methods` says what each computes). None for Grad-CAM, or occlusion for a
                network whose stages have no rows and columns. Rollout is for transformers, and of no class. Integrated
                gradients, occlusion and SHAP are signed: −1…1, and below 0 what speaks against the class.

        Raises:
            UserError: for a class, stage or method that there is not, or an image of less than 2 × 2 pixels.
        """
        wanted = None if label is None else [label]
        return self.explain_batch([image], wanted, stage=stage, method=method)[0].heat

    def explain_batch(
        self,
        images: Sequence[Given],
        labels: Sequence[str | int | None] | None = None,
        *,
        stage: str | None = None,
        method: str | None = None,
    ) -> list["Explanation"]:
        """Explains images together; as `explain`, and says also which class is meant and how probable it is."""
        chosen_method = self.explainer.choose(method, stage)
        decoded = [as_image(image, self.preprocess.white_level) for image in images]
        for image in decoded:
            if min(image.shape[:2]) < 2:
                raise UserError(
                    f"an image of {image.shape[0]} × {image.shape[1]} pixels has no places to tell apart: give one of "
                    "at least 2 × 2"
                )
        if not decoded:
            return []
        fitted = np.stack([self.preprocess.fit(image) for image in decoded])
        probabilities = self.engine.probabilities(fitted)
        wanted = labels or [None] * len(decoded)
        chosen = [
            int(row.argmax()) if label is None else self.find_label(label)
            for label, row in zip(wanted, probabilities, strict=True)
        ]
        maps = self.explainer.maps(chosen_method, fitted, np.asarray(chosen, np.int32), stage)
        return [
            Explanation(
                heat=to_image(maps[i], self.preprocess, *image.shape[:2]),
                label=chosen[i],
                probability=float(probabilities[i, chosen[i]]),
                said=chosen[i] in said(self, probabilities[i]) if self.several_labels else None,
                method=chosen_method.name,
                peak=float(np.abs(maps[i]).max()),
                fine=chosen_method.fine or (chosen_method.by_stage and maps[i].size > _COARSE),
            )
            for i, image in enumerate(decoded)
        ]

    def explain_answer(
        self,
        image: Given,
        label: str | int | None = None,
        stage: str | None = None,
        *,
        method: str | None = None,
    ) -> list["Explanation"]:
        """Explains each label of the answer to an image, the most probable first and at most EXPLAINED of them.

        Of an empty answer it is the most probable label, and of a `label` that is given that one; as `explain`.
        """
        decoded = as_image(image, self.preprocess.white_level)
        chosen: list[str | int | None] = [label]
        if label is None and self.several_labels:
            (row,) = self.engine.probabilities(self.preprocess.fit(decoded)[None])
            chosen = [*said(self, row)[:EXPLAINED]] or [None]
        # One after another: each number of images has a program of its own, which takes longer to compile.
        return [self.explain_batch([decoded], [each], stage=stage, method=method)[0] for each in chosen]

    def features(self, image: Given) -> dict[str, Float32[np.ndarray, "1 rows columns f"]]:
        """Returns what the stem and each stage make of an image, by name, as the model sees it; as `predict`."""
        fitted = self.preprocess.fit(as_image(image, self.preprocess.white_level))[None]
        with jax.default_matmul_precision(self.matmul_precision):
            found = self._features(self.variables, fitted)
        return {name: np.asarray(x, np.float32) for name, x in found.items()}

    def find_label(self, label: str | int) -> int:
        """Returns the number of a class. An int is its number; text is its name, or its number where none is called so.

        Raises:
            UserError: if there is no such class.
        """
        number = label
        if isinstance(label, str):
            if label in self.labels:
                return self.labels.index(label)
            number = int(label) if label.isdecimal() else -1
        if 0 <= int(number) < len(self.labels):
            return int(number)
        raise UserError(
            f"there is no class {label!r}{nearest(str(label), self.labels)}; give one of the {len(self.labels)} names "
            f"({', '.join(self.labels[:3])}, …) or a number from 0 to {len(self.labels) - 1}"
        )

    def __repr__(self) -> str:
        p = self.preprocess
        step = "" if self.step is None else f", step {self.step}"
        return f"<Classifier {self.name}{step}: {p.height}×{p.width}×{p.channels} → {len(self.labels)} classes>"

    @cached_property
    def _embed(self) -> Callable[[Variables, np.ndarray], jax.Array]:
        def embed(variables: Variables, images: jax.Array) -> jax.Array:
            return forward(self.model, self.preprocess, variables, images, method="embed").astype(jnp.float32)

        return jax.jit(embed)

    @cached_property
    def _profile(self) -> Callable[[Variables, np.ndarray], jax.Array]:
        def profiles(variables: Variables, images: jax.Array) -> jax.Array:
            return profile(forward(self.model, self.preprocess, variables, images, method="outputs"))

        return jax.jit(profiles)

    @cached_property
    def _features(self) -> Callable[[Variables, np.ndarray], dict[str, jax.Array]]:
        def features(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
            return forward(self.model, self.preprocess, variables, images, method="features")

        return jax.jit(features)

    @cached_property
    def explainer(self) -> Explainer:
        """What makes the maps of `explain`; its programs are made when they are first asked for."""
        return Explainer(self.model, self.variables, self.preprocess, self.matmul_precision)

    @cached_property
    def engine(self) -> Engine:
        """What computes the probabilities; opened when it is first asked for."""
        return open_engine(
            self.engine_name,
            self.model,
            self.variables,
            self.preprocess,
            name=self.name,
            labels=self.labels,
            matmul_precision=self.matmul_precision,
            activation=self.activation,
            temperature=self.temperature,
            profiles=self.refusal is not None and "distance" in self.refusal.scores,
            embeddings=self.observed,
            folder=self.engine_folder,
            threads=self.engine_threads,
        )

    def with_threads(self, threads: int | None) -> "Classifier":
        """Returns the same classifier with an engine of its own on so many threads, None for one on each core."""
        return replace(self, engine_threads=threads)

    def observing(self) -> "Classifier":
        """Returns the same classifier with an engine that computes embeddings beside the answers."""
        return replace(self, observed=True)

    @cached_property
    def fingerprint(self) -> str:
        """What tells it from a classifier that answers otherwise: of weights, temperature, bounds and preprocessing."""
        answered = zlib.crc32(repr((self.labels, self.thresholds, self.temperature, self.refusal)).encode())
        return f"{checksum(self.model, self.variables, self.preprocess):08x}{answered:08x}"
