"""Similarity losses, compared with their formulas in float64."""

from __future__ import annotations

import pytest
import torch

from meal.distill.similarity import LOSSES, standardise_logits

STUDENT = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.1, -0.7]], dtype=torch.float64)
TEACHER = torch.tensor([[0.2, 0.4, -1.0], [2.0, -1.0, 0.0]], dtype=torch.float64)


def softmax(values: torch.Tensor) -> torch.Tensor:
    return values.exp() / values.exp().sum(dim=1, keepdim=True)


def formula(name: str, tau: float) -> torch.Tensor:
    p, q = softmax(TEACHER / tau), softmax(STUDENT / tau)
    soft_difference = softmax(STUDENT) - softmax(TEACHER)
    alike = [side @ side.T for side in (STUDENT, TEACHER)]
    own, theirs = (each / each.square().sum(dim=1, keepdim=True).sqrt() for each in alike)
    return {
        # The official code's loss: the negated sum over classes, averaged over images.
        "ce": -(p * q.log()).sum(dim=1).mean() * tau**2,
        "kl": (p * (p / q).log()).sum(dim=1).mean() * tau**2,
        "l1": (STUDENT - TEACHER).abs().mean(),
        "l2": (STUDENT - TEACHER).square().mean(),
        "l1_soft": soft_difference.abs().mean(),
        "l2_soft": soft_difference.square().mean(),
        "relations": (own - theirs).square().sum() / 2,  # of two images
    }[name]


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_the_formulas(name: str, tau: float) -> None:
    assert LOSSES[name](STUDENT, TEACHER, tau) == pytest.approx(
        float(formula(name, tau)), rel=1e-12
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_equal_to_its_teacher_has_no_gradient(name: str) -> None:
    student = TEACHER.clone().requires_grad_()
    LOSSES[name](student, TEACHER).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


def test_temperature_preserves_the_size_of_the_gradient() -> None:
    sizes = []
    for tau in (8.0, 16.0):
        student = STUDENT.clone().requires_grad_()
        LOSSES["ce"](student, TEACHER, tau).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_standardised_logits_have_mean_zero_and_std_one_for_each_image() -> None:
    standard = standardise_logits(TEACHER)
    expected = [(value - -0.4 / 3) for value in (0.2, 0.4, -1.0)]
    std = (sum(value**2 for value in expected) / 2) ** 0.5
    assert standard[0].tolist() == pytest.approx([value / std for value in expected], rel=1e-6)
    # The teacher's scale and shift are gone; only the relations between classes are left.
    assert torch.allclose(standardise_logits(3 * TEACHER + 5), standard, atol=1e-6)


def test_relations_need_no_common_axes() -> None:
    """A rotation and another scale leave the relations between images as they are."""
    rotation = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
    relations = LOSSES["relations"]
    assert float(relations(3 * TEACHER @ rotation, TEACHER)) == pytest.approx(0, abs=1e-12)
    assert float(relations(STUDENT, TEACHER)) > 0.01
    padded = torch.cat([TEACHER, torch.zeros(2, 4).double()], dim=1)  # of another size
    assert float(relations(padded, TEACHER)) == pytest.approx(0, abs=1e-12)
