from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.distill.discriminator import Discriminator, discriminate, fool, scale_gradient
from meal.distill.objective import DistillationObjective
from meal.distill.teachers import BlockTargets, Targets
from meal.models.factory import build, with_blocks
from meal.models.spec import NetworkSpec
from tests.conftest import distill_settings

SPEC = NetworkSpec("tiny", 1.0, 1, 16, 3)
MODES = ["minimax", "non_saturating", "cooperative"]


def discriminator_parameters(method: DistillationObjective) -> list[nn.Parameter]:
    return [p for net in method.discriminators.values() for p in net.parameters()]


def objective(**changes: Any) -> DistillationObjective:
    torch.manual_seed(0)
    student = with_blocks(build(SPEC, seed=1), SPEC, 3)
    return DistillationObjective(student, distill_settings(**changes), SPEC.classes)


def batch(count: int = 24) -> tuple[Tensor, Tensor, Targets]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(count, 1, 16, 16, generator=generator)
    labels = torch.arange(count) % 3
    logits = 2 * torch.randn(count, 3, generator=generator)
    blocks: BlockTargets = {
        k: (torch.randn(count, 16, generator=generator) + 0.5, None) for k in (1, 2, 3)
    }
    return images, labels, Targets(logits, blocks)


def student_gradient(**changes: Any) -> Tensor:
    method = objective(**changes)
    method(*batch())[0].backward()
    return torch.cat([p.grad.flatten() for p in method.network.parameters() if p.grad is not None])


def test_a_discriminator_has_the_documented_shape_and_no_final_relu() -> None:
    sizes = [tuple(p.shape) for p in Discriminator(100).parameters() if p.dim() == 2]
    assert sizes == [(50, 100), (25, 50), (1, 25)]
    small = [tuple(p.shape) for p in Discriminator(16).parameters() if p.dim() == 2]
    assert small == [(16, 16), (16, 16), (1, 16)]
    net = Discriminator(16)
    last = net[-1]
    assert isinstance(last, nn.Linear)
    nn.init.constant_(last.bias, -10)
    logits = net(torch.randn(500, 16))
    assert logits.shape == (500, 1) and (logits < 0).all()


def test_the_discriminators_loss_is_the_official_one() -> None:
    """With our logit z, the official code's two outputs are (-z, z), in BCE against one-hot sides.

    Teachers are class 1 and the student class 0; the final ReLU is left out.
    """
    torch.manual_seed(0)
    net = Discriminator(5).double()
    student, teacher = torch.randn(7, 5).double(), torch.randn(7, 5).double()
    loss, accuracy = discriminate(net, student, teacher)
    z = net(torch.cat([student, teacher])).squeeze(1)
    outputs = torch.stack([-z, z], dim=1)
    wanted = F.one_hot(torch.tensor([0] * 7 + [1] * 7), 2).double()
    p = 1 / (1 + (-outputs).exp())
    official = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean()
    assert loss.item() == pytest.approx(official.item(), rel=1e-12)
    right = (z[:7] < 0).sum() + (z[7:] > 0).sum()
    assert accuracy.item() == pytest.approx(right.item() / 14)


def test_an_undecided_discriminator_has_a_loss_of_log_two() -> None:
    net = Discriminator(4)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    loss, _ = discriminate(net, torch.randn(3, 4), torch.randn(3, 4))
    assert loss.item() == pytest.approx(math.log(2))


def test_gradient_scaling() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    scaled = scale_gradient(values, -0.5)
    assert torch.equal(scaled, values)
    (scaled * torch.tensor([3.0, 4.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [-1.5, -2.0]


def test_fooling_trains_the_student_and_not_the_discriminator() -> None:
    net, student = Discriminator(4), torch.randn(3, 4, requires_grad=True)
    fool(net, student).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_total_by_hand() -> None:
    changes: dict[str, Any] = {
        "alpha": 0.7, "label_weight": 0.3, "temperature": 2.0, "beta": 0.5,
        "gamma": {"logits": 2.0, "blocks": [0.1, 0.2, 0.3]}, "adversarial": "minimax",
    }  # fmt: skip
    method = objective(**changes)
    images, labels, targets = batch()
    total, parts = method(images, labels, targets)
    reference = objective(**changes)
    logits, blocks = reference.student(images)
    soft = F.softmax(targets.logits / 2, dim=1)
    similarity = 2.0 * 4 * -(soft * F.log_softmax(logits / 2, dim=1)).sum(dim=1).mean()
    seen = [side - side.mean(dim=1, keepdim=True) for side in (logits, targets.logits)]
    adversarial = discriminate(reference.discriminators["logits"], *seen)[0]
    for block, weight in ((1, 0.1), (2, 0.2), (3, 0.3)):
        values = blocks[block]
        values = (values - values.mean(dim=0)) / (values.var(dim=0, correction=0) + 1e-5).sqrt()
        theirs = targets.blocks[block][0]
        similarity = similarity + weight * (values - theirs).square().mean()
        net = reference.discriminators[f"block{block}"]
        adversarial = adversarial + discriminate(net, values, theirs)[0]
    label = F.cross_entropy(logits, labels)
    expected = 0.7 * similarity + adversarial + 0.3 * label
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert parts["similarity"].item() == pytest.approx(similarity.item(), rel=1e-5)
    assert parts["discriminator"].item() == pytest.approx(adversarial.item() / 4, rel=1e-5)
    assert parts["label"].item() == pytest.approx(label.item(), rel=1e-6)


def test_minimax_gives_the_student_exactly_minus_the_cooperative_gradient() -> None:
    only_adversarial = {"alpha": 0.0}
    minimax = student_gradient(adversarial="minimax", **only_adversarial)
    cooperative = student_gradient(adversarial="cooperative", **only_adversarial)
    assert minimax.abs().max() > 0
    assert torch.equal(minimax, -cooperative)


def test_beta_and_eta_scale_what_the_student_receives() -> None:
    one = student_gradient(adversarial="minimax", alpha=0.0)
    third = student_gradient(adversarial="minimax", alpha=0.0, beta=1 / 3)
    twice = student_gradient(adversarial="minimax", alpha=0.0, eta={"logits": 2.0, "blocks": 2.0})
    assert torch.allclose(third, one / 3, atol=1e-8)
    assert torch.allclose(twice, 2 * one, atol=1e-8)


def test_off_has_no_discriminators() -> None:
    method = objective(adversarial="off")
    assert len(method.discriminators) == 0
    assert len(method.parameter_groups()) == 1
    total, parts = method(*batch())
    assert total.item() == pytest.approx(parts["similarity"].item())
    assert "discriminator" not in parts


def discriminators_loss(method: DistillationObjective) -> float:
    with torch.no_grad():
        return float(method(*batch())[1]["discriminator"])


@pytest.mark.parametrize(
    ("mode", "harder"), [("minimax", True), ("non_saturating", True), ("cooperative", False)]
)
def test_a_student_step_makes_the_discriminators_task_harder_or_easier(
    mode: str, harder: bool
) -> None:
    method = objective(adversarial=mode, alpha=0.0, blocks=[], eta={"logits": 1.0})
    # Train the discriminators first, so that there is something to fool.
    optimizer = torch.optim.Adam(discriminator_parameters(method), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        method(*batch())[0].backward()
        optimizer.step()
    before = discriminators_loss(method)
    method.zero_grad()
    method(*batch())[0].backward()
    with torch.no_grad():
        for parameter in method.network.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.05 * parameter.grad)
    after = discriminators_loss(method)
    assert (after > before) is harder


@pytest.mark.parametrize("mode", MODES)
def test_the_discriminators_own_gradient_is_the_same_in_every_mode(mode: str) -> None:
    def gradient(**changes: Any) -> Tensor:
        method = objective(**changes)
        method(*batch())[0].backward()
        grads = [p.grad.flatten() for p in discriminator_parameters(method) if p.grad is not None]
        return torch.cat(grads)

    plain = gradient(adversarial="cooperative", beta=0.0, alpha=1.0)
    weighted = gradient(adversarial=mode, beta=3.0, alpha=2.0, eta={"logits": 0.5, "blocks": 0.1})
    assert torch.allclose(plain, weighted, atol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_discriminators_are_saved_and_trained_with_their_own_rate(mode: str) -> None:
    method = objective(adversarial=mode)
    names = {name.split(".")[1] for name in method.state_dict() if ".discriminator." in name}
    assert names == {"logits", "block1", "block2", "block3"}
    own, theirs = method.parameter_groups()
    assert theirs.optimisation.lr == 0.01
    assert own.optimisation.lr == 0.05
    found = {id(p) for p in theirs.module.parameters()}
    assert found == {id(p) for p in discriminator_parameters(method)}
    grouped = {id(p) for group in (own, theirs) for p in group.module.parameters()}
    assert grouped == {id(p) for p in method.parameters()}


def test_standardised_blocks_carry_a_gradient_comparable_to_that_of_logits() -> None:
    none = {"adversarial": "off"}
    logits = student_gradient(**none, gamma={"logits": 1.0, "blocks": 0.0}).norm()
    blocks = student_gradient(**none, gamma={"logits": 0.0, "blocks": 1.0}).norm()
    assert blocks > 0.1 * logits


def test_without_norm_raw_blocks_are_compared() -> None:
    method = objective(norm="none", adversarial="off", gamma={"logits": 0.0, "blocks": 1.0})
    images, labels, targets = batch()
    _, blocks = method.student(images)
    parts = [(blocks[k] - targets.blocks[k][0]).square().mean() for k in (1, 2, 3)]
    expected = torch.stack(parts).sum()
    assert method(images, labels, targets)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_with_mean_both_sides_are_log_probabilities() -> None:
    method = objective(selection="mean", adversarial="off", blocks=[], similarity={"logits": "l2"})
    images, labels, targets = batch()
    log_mean = F.log_softmax(targets.logits, dim=1)
    logits, _ = method.student(images)
    expected = (F.log_softmax(logits, dim=1) - log_mean).square().mean()
    total, _ = method(images, labels, Targets(log_mean, {}))
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_block_that_some_teachers_lack_is_compared_for_the_other_rows_only() -> None:
    method = objective(adversarial="minimax", gamma={"logits": 0.0, "blocks": 1.0}, blocks=[1, 2])
    images, labels, targets = batch()
    rows = torch.tensor([3, 5, 8])
    partial = Targets(targets.logits, {1: (targets.blocks[1][0][rows], rows)})
    _, parts = method(images, labels, partial)
    values = method.compared["block1"].norm(method.student(images)[1][1])
    expected = (values[rows] - targets.blocks[1][0][rows]).square().mean()
    assert parts["similarity"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_step_stays_on_one_device_and_reads_nothing_back() -> None:
    """On the meta device, a stray CPU tensor or a value that is read back is an error."""
    method = objective(label_weight=0.5).to("meta")
    images, labels, targets = batch()
    blocks: BlockTargets = {
        k: (values.to("meta"), None) for k, (values, _) in targets.blocks.items()
    }
    total, _ = method(
        images.to("meta"), labels.to("meta"), Targets(targets.logits.to("meta"), blocks)
    )
    total.backward()


def test_a_step_works_if_no_output_of_its_teacher_has_a_discriminator() -> None:
    method = objective(eta={"logits": 0.0, "blocks": 1.0}, blocks=[1])
    images, labels, targets = batch()
    total, parts = method(images, labels, Targets(targets.logits, {}))
    assert total.item() == pytest.approx(parts["similarity"].item())
    total.backward()


def test_a_step_with_nothing_to_compare_has_a_zero_gradient_and_no_error() -> None:
    method = objective(adversarial="off", gamma={"logits": 0.0, "blocks": 1.0}, blocks=[1])
    images, labels, targets = batch()
    total, _ = method(images, labels, Targets(targets.logits, {}))
    total.backward()
    assert total.item() == 0
    grads = [p.grad for p in method.network.parameters() if p.grad is not None]
    assert all(not grad.any() for grad in grads)


def test_standardised_logits_are_compared_but_centred_ones_are_discriminated() -> None:
    changes: dict[str, Any] = {"blocks": [], "temperature": 2.0, "adversarial": "minimax"}
    method = objective(standardise_logits=True, **changes)
    images, labels, targets = batch()
    _, parts = method(images, labels, targets)
    logits, _ = method.student(images)

    def standard(values: Tensor) -> Tensor:
        return (values - values.mean(1, keepdim=True)) / (values.std(1, keepdim=True) + 1e-7)

    soft = F.softmax(standard(targets.logits) / 2, dim=1)
    expected = 4 * -(soft * F.log_softmax(standard(logits) / 2, dim=1)).sum(dim=1).mean()
    assert parts["similarity"].item() == pytest.approx(expected.item(), rel=1e-5)
    centred = [side - side.mean(dim=1, keepdim=True) for side in (logits, targets.logits)]
    seen = discriminate(method.discriminators["logits"], *centred)[0]
    assert parts["discriminator"].item() == pytest.approx(seen.item(), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_discriminators_do_not_see_the_mean_logit(mode: str) -> None:
    """Softmax ignores it, so it would tell the sides apart by what is no output."""
    images, labels, targets = batch()
    shifted = replace(targets, logits=targets.logits + 100.0 * torch.arange(len(images))[:, None])
    losses = [
        objective(blocks=[], adversarial=mode)(images, labels, each)[1]["discriminator"].item()
        for each in (targets, shifted)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_held_out_accuracy_by_hand() -> None:
    method = objective(blocks=[], adversarial="minimax")
    judge = nn.Linear(3, 1, bias=False)  # says teacher where the first centred logit is above 0
    judge.weight = nn.Parameter(torch.tensor([[1.0, 0.0, 0.0]]))
    method.compared["logits"].discriminator = judge  # type: ignore[assignment]
    student = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [1.0, 3.0, 2.0], [-1.0, 0.0, 5.0]])
    one, two = torch.tensor([[5.0, 3.0, 1.0]] * 4), torch.tensor([[5.0, 6.0, 7.0]] * 4)
    # Right about three of four for the student, all of one teacher, and none of the other.
    assert method.held_out_accuracy(student, one) == pytest.approx(100 * (3 + 4) / 8)
    assert method.held_out_accuracy(student, two) == pytest.approx(100 * (3 + 0) / 8)
    many = [side.repeat(2000, 1) for side in (student, one)]  # in several slices
    assert method.held_out_accuracy(*many) == pytest.approx(100 * (3 + 4) / 8)


SIZES = {"wide": {1: 24, 2: 40}, "narrow": {1: 4}}  # channels of two teachers' blocks


def projected(**changes: Any) -> DistillationObjective:
    torch.manual_seed(0)
    student = with_blocks(build(SPEC, seed=1), SPEC, 3, "projected")
    return DistillationObjective(student, distill_settings(**changes), 3, projected=SIZES)


def projection(method: DistillationObjective, name: str) -> Tensor:
    weight = method.compared[name].projection.weight
    assert isinstance(weight, Tensor)
    return weight


def test_projected_blocks_have_a_projection_and_a_discriminator_for_each_teacher() -> None:
    method = projected()
    names = {"wide_block1", "wide_block2", "narrow_block1"}
    assert set(method.compared) == set(method.discriminators) == {"logits", *names}
    assert projection(method, "wide_block2").shape == (40, 8)  # the student has 8 channels
    grouped = [id(p) for group in method.parameter_groups() for p in group.module.parameters()]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())


def test_a_projected_block_is_mapped_standardised_and_compared_with_its_teacher() -> None:
    method = projected(adversarial="off", gamma={"logits": 0.0, "blocks": 1.0})
    images, labels, targets = batch()
    theirs = torch.randn(24, 4, generator=torch.Generator().manual_seed(3))
    narrow = Targets(targets.logits, {1: (theirs, None)}, "narrow")
    total, parts = method(images, labels, narrow)
    _, blocks = method.student(images)
    values = blocks[1] @ projection(method, "narrow_block1").T
    values = (values - values.mean(dim=0)) / (values.var(dim=0, correction=0) + 1e-5).sqrt()
    expected = (values - theirs).square().mean()
    assert parts["similarity"].item() == pytest.approx(expected.item(), rel=1e-4)
    total.backward()
    assert projection(method, "narrow_block1").grad is not None
    assert projection(method, "wide_block1").grad is None


def test_labels_can_be_probabilities() -> None:
    method = objective(adversarial="off", label_weight=1.0)
    images, labels, targets = batch()
    mixed = 0.3 * F.one_hot(labels, 3) + 0.7 * F.one_hot(labels.roll(1), 3)
    logits, _ = method.student(images)
    expected = -(mixed * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    assert method(images, mixed, targets)[1]["label"].item() == pytest.approx(
        expected.item(), rel=1e-5
    )
