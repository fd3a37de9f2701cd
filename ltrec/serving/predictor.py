"""Prediction with the exported ONNX file alone: it needs onnxruntime, Pillow and NumPy, not torch."""

from __future__ import annotations

import io
import itertools
import sys
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import console
from ltrec.data.images.decoding import decode_square
from ltrec.data.images.formats import UnreadableImageError
from ltrec.errors import UserError, one_line, some
from ltrec.process import cores
from ltrec.serving import inputs as given
from ltrec.serving import seal
from ltrec.serving.answers import WRITERS, Prediction
from ltrec.serving.asked_prior import given_prior, with_estimated_prior
from ltrec.serving.model_card import INPUT, OUTPUTS, ModelCard
from ltrec.serving.prior_files import ESTIMATE
from ltrec.serving.priors import reweighted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from ltrec.serving.answers import Format
    from ltrec.serving.priors import Prior

    Decoded = NDArray[np.uint8] | UnreadableImageError

_BATCH = 32
# Of very large squares fewer make a batch.
_BATCH_BYTES = 2**27


class Predictor:
    """A classifier from a file that `ltrec export` wrote.

    onnxruntime and the decoders have `threads` threads each; None: one for each core that this process may use.

    Raises:
        UserError: There is no such file, or it is damaged, or was altered after its export, or is not one of ltrec's.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        import onnxruntime

        if not path.is_file():
            raise UserError("no such model file; `ltrec export --onnx` writes it", where=str(path))
        self._path = path
        is_sealed = seal.require_intact(path)
        # onnxruntime counts the machine's cores, not those of this container or `taskset`.
        self._threads = threads or cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        # The level above crashes on half-precision transformers (onnxruntime issue 26717) and helps no others.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_LAYOUT
        # Waiting threads sleep instead of spinning, which leaves the cores to decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            inputs, outputs = (
                {entry.name: (entry.type, entry.shape[1:]) for entry in entries}
                for entries in (self._session.get_inputs(), self._session.get_outputs())
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base but this
            raise UserError(f"damaged, or not an ONNX model ({one_line(error)})", where=str(path)) from None
        if seal.KEY in metadata and not is_sealed:
            raise seal.altered(path)
        self.card = ModelCard.from_metadata(metadata, where=str(path))
        self._batch = max(1, min(_BATCH, _BATCH_BYTES // (3 * self.card.geometry.size**2)))
        self._check_shapes(inputs, outputs)

    def _check_shapes(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        size, classes = self.card.geometry.size, len(self.card.classes)
        wanted = {name: ("tensor(float)", [classes]) for name in OUTPUTS}
        if inputs != {INPUT: ("tensor(uint8)", [size, size, 3])} or outputs != wanted:
            found = one_line(ValueError(f"inputs {inputs} and outputs {outputs}"))
            raise UserError(
                f"its metadata tells of {size} px and {classes} classes, which its {found} do not fit;"
                " `ltrec export --onnx` writes it anew",
                where=str(self._path),
            )

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits and probabilities, float32 (N, C), of squares, uint8 (N, H, W, 3).

        Raises:
            UserError: onnxruntime cannot run the file.
        """
        try:
            logits, probabilities = self._session.run(list(OUTPUTS), {INPUT: images})
        except Exception as error:  # noqa: BLE001 - as above
            raise UserError(f"cannot be run ({one_line(error)})", where=str(self._path)) from None
        return logits, probabilities

    def predict(self, files: Iterable[Path], prior: Prior | None = None) -> Iterator[Prediction]:
        """Yield a prediction for each file, in order; the next batch is decoded while one is computed.

        Args:
            files: The images.
            prior: The class prior (C,) to answer for, positive; None: the one that the file answers for.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            remaining = iter(files)
            waiting: deque[list[tuple[Path, Future[Decoded]]]] = deque()
            try:
                while batch := list(itertools.islice(remaining, self._batch)):
                    waiting.append([(file, pool.submit(self._decode, file)) for file in batch])
                    if len(waiting) > 1:
                        yield from self._predict_batch(waiting.popleft(), prior)
                while waiting:
                    yield from self._predict_batch(waiting.popleft(), prior)
            finally:
                pool.shutdown(cancel_futures=True)

    def _decode(self, file: Path) -> Decoded:
        try:
            return decode_square(file, self.card.geometry)
        except UnreadableImageError as error:
            return error

    def _predict_batch(self, batch: list[tuple[Path, Future[Decoded]]], prior: Prior | None) -> Iterator[Prediction]:
        decoded = [(file, future.result()) for file, future in batch]
        images = [image for _, image in decoded if isinstance(image, np.ndarray)]
        rows: Iterator[NDArray[np.float32]] = iter(self._probabilities(np.stack(images)) if images else ())
        for file, image in decoded:
            if not isinstance(image, np.ndarray):
                yield Prediction(file, None, str(image), read=False)
            elif not np.isfinite(row := next(rows)).all():
                yield Prediction(file, None, "the model gives numbers that are not finite")
            else:
                yield self.answer(Prediction(file, row, unknown=self._is_unknown(row)), prior)

    def answer(self, prediction: Prediction, prior: Prior | None) -> Prediction:
        """Return a prediction whose probabilities answer for the file's prior as one for another prior (C,), if any."""
        row, threshold = prediction.probabilities, self.card.abstain_below
        assert row is not None, "there is something to answer"
        if prior is not None:
            row = reweighted(row[None], self.prior, prior)[0]
        abstained = threshold is not None and float(row.max()) < threshold
        return replace(prediction, probabilities=row, abstained=abstained)

    @cached_property
    def prior(self) -> Prior:
        """Return the class prior (C,) that the file's probabilities answer for.

        Raises:
            UserError: The file does not say.
        """
        if self.card.answered_prior is None:
            if self.card.class_counts and not all(self.card.class_counts):
                counts = zip(self.card.classes, self.card.class_counts, strict=True)
                absent = some([name for name, count in counts if not count])
                raise UserError(
                    f"its head expects no image of {absent}, which train had none of, and no other prior can take its"
                    " place",
                    where=str(self._path),
                )
            raise UserError(
                "does not say which class prior its head answers for, so no other can take its place;"
                " `ltrec export --onnx` writes it anew",
                where=str(self._path),
            )
        return np.array(self.card.answered_prior)

    def _is_unknown(self, row: NDArray[np.float32]) -> bool:
        """Return whether the head itself, whatever the file made of its prior, is below its threshold."""
        if self.card.unknown_below is None:
            return False
        if self.card.prior is not None and self.card.head_prior is not None:
            row = reweighted(row[None], self.prior, np.array(self.card.head_prior))[0]
        return float(row.max()) < self.card.unknown_below

    def _probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities (N, C); NaN where a logit is not finite."""
        wanted = (len(images), len(self.card.classes))
        logits, probabilities = self.run(images)
        if not logits.shape == probabilities.shape == wanted:
            raise UserError(
                f"gives outputs of shapes {logits.shape} and {probabilities.shape} for {len(images)} images, not"
                f" {wanted}",
                where=str(self._path),
            )
        return np.where(np.isfinite(logits).all(axis=1, keepdims=True), probabilities, np.nan)


def run_predict(
    inputs: list[str],
    *,
    model: Path,
    output_format: Format = "table",
    top: int = 5,
    null: bool = False,
    prior: str | None = None,
) -> None:
    """Classify images and print the result to stdout.

    An image that cannot be read is warned of and the others go on. If it was named, as an argument or on stdin,
    the command fails at its end; in a folder other files may lie too, so there it fails only if none is an image.
    It fails as well if the model gives no finite numbers for an image.

    Args:
        inputs: Images, folders (taken with all below them, in order), or `-` for a list on stdin, a path a line.
        model: The ONNX file.
        output_format: The format of what is printed.
        top: How many classes to name for an image.
        null: Whether NUL bytes separate the paths of the list, not line ends.
        prior: The class prior to answer for: `uniform`, `train`, a file that `read_prior` reads, or `estimate`, which
            is made from all the images before the first is answered; None: the file's own.

    Raises:
        UserError: The model cannot be used, or images could not be read, or it gives no finite numbers for some.
    """
    predictor = Predictor(model)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names that are no UTF-8 leave as they came
    files, origins = itertools.tee(given.files(inputs, null=null))
    wanted = None if prior in {None, ESTIMATE} else given_prior(predictor, str(prior))
    predictions = predictor.predict((file for file, _ in files), wanted)
    counts: Counter[str] = Counter()
    overflowed: list[str] = []
    usable = _usable(predictions, (named for _, named in origins), counts, overflowed)
    if prior == ESTIMATE:
        usable = with_estimated_prior(predictor, usable)
    WRITERS[output_format](usable, predictor.card, min(top, len(predictor.card.classes)))
    sys.stdout.flush()
    if not counts["all"]:
        raise UserError("no images given", where="predict")
    if overflowed:
        raise UserError(
            f"gives numbers that are not finite for {len(overflowed)} of {counts['all']} files: {some(overflowed)}",
            where=str(model),
        )
    if counts["named and unread"] or counts["unread"] == counts["all"]:
        unread = counts["named and unread"] or counts["unread"]
        raise UserError(f"{unread} of {counts['all']} files could not be read", where="predict")


def _usable(
    predictions: Iterable[Prediction], named: Iterable[bool], counts: Counter[str], overflowed: list[str]
) -> Iterator[Prediction]:
    """Yield the predictions that hold probabilities; warn of the others, and count."""
    for prediction, is_named in zip(predictions, named, strict=True):
        counts["all"] += 1
        if prediction.probabilities is not None:
            yield prediction
            continue
        if prediction.read:
            overflowed.append(str(prediction.file))
        else:
            counts["unread"] += 1
            counts["named and unread"] += is_named
        console.warn(f"{prediction.file}: {prediction.problem}")
