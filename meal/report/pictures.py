"""The pictures of a report: each is a figure with a caption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from meal.core.text import plain
from meal.evaluation.metrics import confusion
from meal.evaluation.predictions import BASELINE, ENSEMBLE, FITTED, STUDENT, TEACHER, Predictions
from meal.metrics import calibration_bins, calibration_error
from meal.report.figures import BLACK, COLOURS, TEACHER_COLOURS, TEACHER_MARKERS, WHITE

if TYPE_CHECKING:
    import pandas as pd

_MOST_CLASSES = 20  # that fit legibly into a confusion matrix
_FEW_CLASSES = 12  # for which a cell has room for larger digits
_SHOWN_IMAGES, _IN_A_ROW = 20, 5


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, a title and a caption."""

    name: str
    title: str
    words: str
    figure: Any


def _class_names(predictions: Predictions, length: int) -> list[str]:
    """Names of the classes for figures, shortened in the middle.

    A `$` would start a formula, and invisible characters may reverse the text around them.
    """
    names = []
    for name in predictions.card["classes"]:
        text = plain(name)
        if len(text) > length:
            text = f"{text[: length // 2]}…{text[-(length // 2 - 1) :]}"
        names.append(text.replace("$", r"\$"))
    return names


def name_of(model: str) -> str:
    """A model's name in text."""
    words = {ENSEMBLE: "ensemble", FITTED: "ensemble, fitted"}
    return words.get(model, model.removeprefix(TEACHER))


def _looks(models: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each model, the same in every picture."""
    teachers = [model for model in models if model.startswith(TEACHER)]
    looks = {model: (colour, "o") for model, colour in COLOURS.items()}
    looks[STUDENT] = (COLOURS[STUDENT], "*")
    for number, model in enumerate(teachers):
        colour = TEACHER_COLOURS[number % len(TEACHER_COLOURS)]
        marker = TEACHER_MARKERS[(number + number // len(TEACHER_COLOURS)) % len(TEACHER_MARKERS)]
        looks[model] = (colour, marker)
    return looks


def error_against_cost(metrics: Mapping[str, Any]) -> Picture:
    """The error of each model against the cost of a prediction."""
    cost = metrics["cost"]
    models = [ENSEMBLE, FITTED]
    macs = {
        STUDENT: cost["student_macs"], BASELINE: cost["student_macs"],
        ENSEMBLE: cost["ensemble_macs"], FITTED: cost["ensemble_macs"],
    }  # fmt: skip
    errors = {model: metrics[model]["top1_error"] for model in macs}
    for teacher, scores in metrics["teachers"].items():
        models.append(TEACHER + teacher)
        macs[models[-1]] = cost["teachers"][teacher]["macs"]
        errors[models[-1]] = scores["top1_error"]
    models += [BASELINE, STUDENT]  # the last ones are drawn on top
    looks = _looks(models)
    figure, axis = plt.subplots(figsize=(6, 3.4))
    for place, model in enumerate(models):
        colour, marker = looks[model]
        # Markers may coincide: those drawn first are larger, so they stay visible.
        size = 240 if model == STUDENT else 60 + 40 * (len(models) - place) / len(models)
        axis.scatter(
            macs[model] / 1e6, errors[model], s=size, marker=marker, color=colour, zorder=3,
            edgecolors=WHITE, linewidths=0.5,
            label=f"{name_of(model)}: {errors[model]:.2f}%, {macs[model] / 1e6:.1f} M",
        )  # fmt: skip
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    if max(macs.values()) > 5 * min(macs.values()):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 40, not 4 x 10^1
        axis.xaxis.set_minor_formatter(NullFormatter())  # their labels would overlap
    axis.margins(0.2)
    axis.set_xlabel("multiply-adds per prediction (millions)")
    axis.set_ylabel("top-1 error on test (%)")
    axis.grid(alpha=0.25)
    said = "; ".join(
        f"{name_of(m)} {errors[m]:.2f}% at {macs[m] / 1e6:.1f} million" for m in models
    )
    return Picture("error_cost", "Error against cost", f"Error and multiply-adds: {said}.", figure)


def training_curves(curves: Mapping[str, pd.DataFrame]) -> Picture:
    """The student's losses, the discriminators' accuracy, and all models' validation error.

    Args:
        curves: the rows of `reports/training`, by `student`, `baseline` and `teachers/NAME`.
    """
    student = curves[STUDENT]
    adversarial = "discriminator_accuracy" in student
    figure, axes = plt.subplots(1, 3 if adversarial else 2, figsize=(9, 2.8))
    losses, errors = axes[0], axes[-1]
    looks = _looks(curves)

    def draw(axis: Any, rows: pd.DataFrame, column: str, colour: str, **style: Any) -> None:
        marker = "o" if len(rows) == 1 else None  # a single point draws no line
        axis.plot(rows["epoch"], rows[column], color=colour, marker=marker, **style)

    for column, colour in (("similarity", COLOURS[STUDENT]), ("discriminator", COLOURS[ENSEMBLE])):
        if column in student:
            draw(losses, student, column, colour, label=column)
    losses.set_title("losses of the student", fontsize=9)
    losses.legend()
    if adversarial:
        draw(axes[1], student, "discriminator_accuracy", COLOURS[STUDENT], label="all, in training")
        held_out = "validation_discriminator_accuracy"
        if held_out in student:
            draw(axes[1], student, held_out, COLOURS[ENSEMBLE], label="logits, held out")
        axes[1].legend(fontsize=7)
        axes[1].axhline(50, color=COLOURS[BASELINE], linestyle=":", linewidth=1)
        axes[1].set_title("accuracy of the discriminators (%)", fontsize=9)
    for model, rows in curves.items():
        width = 1.8 if model == STUDENT else 0.9
        draw(
            errors, rows, "validation_top1_error", looks[model][0],
            linewidth=width, label=name_of(model),
        )  # fmt: skip
    ends = [float(rows["validation_top1_error"].iloc[-1]) for rows in curves.values()]
    highest = max(float(rows["validation_top1_error"].max()) for rows in curves.values())
    errors.set_ylim(0, min(1.05 * highest, 4 * max(ends) + 1) or 1)  # where the curves end
    errors.set_title("validation error (%)", fontsize=9)
    errors.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.tight_layout()
    last = student["validation_top1_error"].iloc[-1]
    epochs = f"{len(student)} epoch{'' if len(student) == 1 else 's'}"
    words = f"Curves over {epochs}; the student ends at {last:.2f}% validation error."
    return Picture("training", "Training", words, figure)


def reliability(predictions: Predictions) -> Picture:
    """Accuracy by confidence: a model on the diagonal is right as often as it is confident."""
    models = [STUDENT, BASELINE, ENSEMBLE]
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True)
    gaps = []
    for axis, model in zip(axes, models, strict=True):
        confidence = predictions.models[model].confidence.astype(np.float64)
        bins = calibration_bins(confidence, predictions.correct(model))
        some, colour = bins["images"] > 0, COLOURS[model]
        fractions = bins["images"] / len(predictions.labels)
        gap = calibration_error(confidence, predictions.correct(model))
        gaps.append(f"{name_of(model)} {gap:.2f}%")
        axis.plot([0, 1], [0, 1], color=TEACHER_COLOURS[0], linestyle=":", linewidth=1)
        axis.plot(bins["confidence"][some], bins["accuracy"][some], color=colour)
        axis.scatter(
            bins["confidence"][some], bins["accuracy"][some], color=colour,
            s=10 + 150 * fractions[some], alpha=0.8,
        )  # fmt: skip
        axis.set_title(f"{name_of(model)}: ECE {gap:.2f}%", fontsize=9)
        axis.set_xlabel("confidence")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("accuracy")
    figure.tight_layout()
    words = f"Expected calibration error: {', '.join(gaps)}. Dots are larger for more images."
    return Picture("reliability", "Reliability", words, figure)


def confusion_matrices(predictions: Predictions) -> Picture:
    """The classes that student and ensemble confuse."""
    names = _class_names(predictions, 14)
    matrices = {
        model: confusion(predictions.models[model].predicted, predictions.labels, len(names))
        for model in (STUDENT, ENSEMBLE)
    }
    wrong = matrices[STUDENT] - np.diag(np.diag(matrices[STUDENT]))
    label, prediction = np.unravel_index(int(wrong.argmax()), wrong.shape)
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable").tolist()
    hardest = dict.fromkeys(
        [int(label), int(prediction), *order]
    )  # including the pair in the caption
    shown = np.sort(list(hardest)[:_MOST_CLASSES])
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharey=True)
    parts = {model: counts[np.ix_(shown, shown)] for model, counts in matrices.items()}
    errors = {model: part - np.diag(np.diag(part)) for model, part in parts.items()}
    most = max(1, *(int(part.max()) for part in errors.values()))
    size = 7 if len(shown) <= _FEW_CLASSES else 5
    for axis, (model, counts) in zip(axes, parts.items(), strict=True):
        tint = np.zeros((*counts.shape, 4))  # fades into the page, light or dark
        tint[..., :3] = to_rgb(COLOURS[STUDENT])
        tint[..., 3] = np.where(errors[model] > 0, 0.15 + 0.55 * errors[model] / most, 0)
        axis.imshow(tint)
        for row, column in zip(*np.nonzero(counts), strict=True):
            axis.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=size
            )
        axis.set_xticks(range(len(shown)), [names[k] for k in shown], rotation=90, fontsize=7)
        axis.set_yticks(range(len(shown)), [names[k] for k in shown], fontsize=7)
        axis.set_title(name_of(model), fontsize=9)
        axis.set_xlabel("prediction")
    axes[0].set_ylabel("label")
    figure.tight_layout()
    words = "Images by label (row) and prediction (column); colours mark errors. "
    if wrong.max():
        taken, given = (plain(predictions.card["classes"][k]) for k in (label, prediction))
        words += (
            f"The student most often mistakes {taken} for {given}: "
            f"{wrong.max()} of {matrices[STUDENT][label].sum()} images."
        )
    else:
        words += "The student confuses no classes."
    few = len(names) > _MOST_CLASSES
    title = f"Confusion, the {_MOST_CLASSES} hardest classes" if few else "Confusion"
    return Picture("confusion", title, words, figure)


def error_similarity(predictions: Predictions) -> Picture:
    """How often models err on the same images; an ensemble needs members that do not."""
    models = [*(TEACHER + name for name in predictions.teachers), ENSEMBLE, BASELINE, STUDENT]
    wrong = {model: ~predictions.correct(model) for model in models}
    common = np.array([[_overlap(wrong[a], wrong[b]) for b in models] for a in models])
    figure, axis = plt.subplots(figsize=(1.6 + 0.6 * len(models), 1.3 + 0.5 * len(models)))
    axis.imshow(common, cmap="viridis", vmin=0, vmax=1)
    for row, column in np.ndindex(*common.shape):
        shade = BLACK if common[row, column] > 0.6 else WHITE
        text = "" if np.isnan(common[row, column]) else f"{100 * common[row, column]:.0f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)
    names = [name_of(model) for model in models]
    axis.set_xticks(range(len(models)), names, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(len(models)), names, fontsize=8)
    figure.tight_layout()
    count = len(predictions.teachers)
    pairs = common[:count, :count][~np.eye(count, dtype=bool)]
    words = "Of the images that either of two models gets wrong, the percentage that both do. "
    if np.isfinite(pairs).any():
        words += f"Between teachers: {100 * np.nanmean(pairs):.0f}% on average. "
    if np.isfinite(common[-1, count]):
        words += f"Between student and ensemble: {100 * common[-1, count]:.0f}%."
    else:
        words += "Student and ensemble make no errors."
    return Picture("error_similarity", "Errors in common", words, figure)


def _overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    either = (first | second).sum()
    return float((first & second).sum() / either) if either else float("nan")


def seen_differently(
    predictions: Predictions, fetch: Callable[[Sequence[int]], NDArray[np.uint8]]
) -> Picture | None:
    """Test images for which student and ensemble predict different classes; None if there are none.

    Args:
        predictions: of all models.
        fetch: from the numbers of test images to their pixels `(B, H, W, C)`.
    """
    student, ensemble = predictions.models[STUDENT], predictions.models[ENSEMBLE]
    rows = np.flatnonzero(student.predicted != ensemble.predicted)
    if not len(rows):
        return None
    confidence = np.minimum(student.confidence[rows], ensemble.confidence[rows])
    rows = rows[np.argsort(-confidence, kind="stable")][:_SHOWN_IMAGES]
    if len(rows) > _IN_A_ROW:  # full rows alone
        rows = rows[: len(rows) // _IN_A_ROW * _IN_A_ROW]
    names = _class_names(predictions, 16)
    columns = min(_IN_A_ROW, len(rows))
    lines = len(rows) // columns
    figure, axes = plt.subplots(
        lines, columns, figsize=(1.8 * columns, 2.25 * lines), squeeze=False
    )
    for axis, row, pixels in zip(axes.flat, rows, fetch(rows.tolist()), strict=True):
        axis.axis("off")
        grey = pixels.shape[2] == 1
        axis.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None)
        axis.set_title(
            f"image {row}: {names[predictions.labels[row]]}\n"
            f"student {names[student.predicted[row]]} {student.confidence[row]:.2f}\n"
            f"ensemble {names[ensemble.predicted[row]]} {ensemble.confidence[row]:.2f}",
            fontsize=7.5,
        )
    figure.tight_layout()
    total = int((student.predicted != ensemble.predicted).sum())
    right = int(((student.predicted != ensemble.predicted) & predictions.correct(STUDENT)).sum())
    words = (
        f"Student and ensemble predict different classes for {total} of "
        f"{len(predictions.labels)} test images; the student is correct on {right} of them. Shown: "
        f"the {len(rows)} on which both are most confident, with number and label of the test "
        "image, then what each predicts and how confident it is."
    )
    return Picture("seen_differently", "Seen differently", words, figure)
