from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from meal.configure.checks import checked_slices, warnings
from meal.configure.schema import Params, load_params
from meal.configure.slices import resolve
from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.settings import parse, parse_yaml
from meal.datasets.registry import DATASETS
from meal.models.architectures import check
from meal.models.settings import Network
from meal.training.settings import Training
from stages import configure
from tests.conftest import ROOT

# What a user types after -S, and what the one-line error must contain.
FAULTS = {
    "student=nope": "student='nope': not one of networks; allowed: densenet, ",
    "teachers=[ghost]": "teachers='ghost': not one of networks; allowed: densenet, ",
    "teachers=[]": "teachers=[]: must have at least 1 entries",
    "networks.ensemble={arch: vgg19}": "and is not one of mean, ensemble, ensemble_fitted",
    "views.scale='0.3,1'": "views.scale='0.3,1': must be a list",
    "teaching.epochs=1:30": "teaching.epochs='1:30': must be a valid integer",
    "networks.vgg.input={mean: [1.0e+300], std: [1]}": "must be less than or equal to 1000",
    "teachers=[vgg, vgg]": "teachers=['vgg', 'vgg']: vgg is repeated",
    "teachers=vgg": "teachers='vgg': must be a list",
    "teachers=['../../x']": "teachers.0='../../x': a name has 1 to 64 letters",
    "dataset=mnist": "dataset='mnist': unknown; allowed: cifar10, cifar100, digits, fashion_mnist",
    "dataset=folder": "data.root=auto: dataset folder needs it",
    "data.store=index": "data.store='index': digits is not a folder of image files; allowed: auto",
    "data.store=disk": "data.store='disk': must be 'auto', 'array' or 'index'",
    "data.source_size=32": "data.source_size=32: it needs an image_size",
    "data.test_fraction=1": "data.test_fraction=1: must be less than 1",
    "runtime.workers=-1": "runtime.workers=-1: must be greater than or equal to 0",
    "networks.vgg.arch=alexnet": "networks.vgg.arch='alexnet': unknown; allowed: densenet, ",
    "networks.vgg.arch=dpn92": "networks.vgg.width=0.125: dpn92 supports only width 1",
    "networks.vgg.depth=3": "networks.vgg.depth: unknown key; allowed here: arch, width, seed",
    "networks.vgg.options={a: .nan}": "networks.vgg.options={'a': nan}: expected texts",
    "networks.vgg.options={a: 2020-01-02}": "expected texts, finite numbers",
    "networks.vgg.blocks=['']": "networks.vgg.blocks.0='': string should have at least 1",
    "networks.vgg.arch='networks:f'": "your own networks belong in the folder networks/",
    f"networks.vgg.arch='networks.{'a' * 300}:f'": "belong in the folder networks/",
    "networks.vgg={arch: timm/resnet18.bogus, weights: pretrained}": "unknown; nearest: resnet18.",
    "networks.vgg={arch: timm/resnet18.bogus}": "arch='timm/resnet18.bogus': unknown",
    'networks.vgg={arch: timm/resnet18, options: {"weights\\e[31m\\n": 1}}': (
        "options.weights\\x1b[31m\\n=1"
    ),
    "views.count=1000000000": "views.count=1000000000: must be less than or equal to 100000",
    "distill.lr=1e300": "distill.lr=1e+300: must be less than or equal to",
    "cache.top_k=none": "cache.top_k='none': to leave it unset, write all",
    "data.root=none": "data.root='none': to leave it unset, write auto",
    "networks.vgg={arch: timm/resnet18.a1}": "arch='timm/resnet18.a1': unknown",
    "networks.vgg={arch: timm/resnet18.}": "arch='timm/resnet18.': unknown",
    "data.labelled=1.0": "data.labelled=1.0: as a fraction, all images: write all",
    "networks.vgg=3": "networks.vgg=3: must be keys with values",
    "networks.mean={arch: vgg19}": "a name has 1 to 64 letters",
    "epochs=3": "epochs: unknown key; allowed here: seed, dataset, student",
    "distill.epochs=-1": "distill.epochs=-1: must be greater than or equal to 1",
    "distill.epochs=true": "distill.epochs=True: expected a number",
    "distill.lr=abc": "distill.lr='abc': must be a valid number",
    "distill.lr=.nan": "distill.lr=nan: must be a finite number",
    "distill.momentum=0": "distill.momentum=0: nesterov: true needs momentum above 0",
    "distill.temperature=0": "distill.temperature=0: must be greater than or equal to 0.01",
    "distill.adversarial=gan": "distill.adversarial='gan': must be 'off', 'minimax', ",
    "distill.similarity.logits=cosine": "distill.similarity.logits='cosine': must be 'ce'",
    "distill.gamma.blocks=[1, 2]": "distill.gamma.blocks=[1.0, 2.0]: give one number, or one for",
    "distill.gamma.blocks=many": "distill.gamma.blocks='many': must be a valid number",
    "distill.blocks=[1, 9]": "distill.blocks=[1, 9]: cache.blocks is 3; allowed: blocks from 1 to",
    "distill.discriminator.speed=1": "distill.discriminator.speed: unknown key; allowed here: ",
    "distill=null": "distill=None: must be keys with values",
    "views.flip=maybe": "views.flip='maybe': must be a valid boolean",
    "views.count=0": "views.count=0: must be greater than or equal to 1",
    "views.count=60": "views.count=60: crop_padding 2 and flip False give 25 different views",
    "views.count=some": "views.count='some': must be a valid integer",
    "views.crop=square": "views.crop='square': must be 'padded' or 'resized'",
    "views.scale=[0.5, 0.1]": "views.scale=[0.5, 0.1]: expected two fractions of the area",
    "cache.top_k=0": "cache.top_k=0: must be greater than or equal to 1",
    "cache={top_k: 10}\ndistill.temperature=1": "cache.top_k=10: digits has 10 classes; allowed: 1",
    "data.image_size=7": "data.image_size=7: must be greater than or equal to 16",
    "data.validation_fraction=1": "data.validation_fraction=1: must be less than 1",
    "runtime.device=tpu": "runtime.device='tpu': allowed: auto, cpu, cuda, cuda:N",
    "runtime.device='cuda:٣'": "runtime.device='cuda:٣': allowed: auto, cpu, cuda, cuda:N",
    "runtime.device='cuda:00'": "runtime.device='cuda:00': allowed: auto, cpu, cuda, cuda:N",
    "runtime.device='cuda:99'": "runtime.device='cuda:99': ",
    "runtime.checkpoint_minutes=1.0e-9": "minutes=1e-09: must be greater than or equal to",
    "teaching.batch_size=1000000000000": "must be less than or equal to 65536",
    "teaching.epochs=1000000000": "epochs=1000000000: must be less than or equal to 100000",
    f"teaching.epochs=1{400 * '0'}": "...: must be less than or equal to 100000",
    f"distill.seed=1{30 * '0'}": "expected an integer from 0 to 9223372036854775807",
    "teaching.lr_gamma=1e300": "must be less than or equal to 1",
    "teaching.schedule=step": "teaching.milestones=[]: schedule: step needs the epochs of its",
    "networks.vgg.width=1.0e-9": "networks.vgg.width=1e-09: must be greater than or equal to 0.01",
    "networks.vgg.width=1000000": "networks.vgg.width=1000000: must be less than or equal to 64",
    "distill.temperature=1.0e-308": "temperature=1e-308: must be greater than or equal to 0.01",
    "data.labelled=none": "data.labelled='none': expected all, a number of images, or a fraction",
    "data.labelled=0": "data.labelled=0: expected all, a number of images, or a fraction",
    "data.labelled=1.5": "data.labelled=1.5: expected all, a number of images, or a fraction",
    "data.labelled=true": "data.labelled=True: expected all, a number of images, or a fraction",
    "views.crop_padding=9": "views.crop_padding=9: images have 16 pixels; allowed: 0 to 8",
    "networks.vgg.weights={file: x.pt}": "networks.vgg.weights.file='x.pt': no such file",
    "networks.vgg.weights=best": "weights='best': must be 'pretrained' or keys with values",
    "networks.vgg.weights={file: x.pt, sha256: 12ab}": "expected the 64 digits (0-9, a-f)",
    "networks.vgg.head=new": "networks.vgg.head='new': without weights, the whole network is new",
    "networks.vgg.head=old": "networks.vgg.head='old': must be 'new'",
    "networks.vgg.training={lrr: 1}": "networks.vgg.training.lrr: unknown key; allowed here: ",
    "networks.vgg.training={epochs: 0}": "networks.vgg.training.epochs=0: must be greater than",
    "networks.vgg.training=7": "networks.vgg.training=7: must be keys with values",
    "networks.vgg={arch: timm/resnet18, weights: pretrained, training: {lr: 1}}": "networks.vgg."
    "training={'lr': 1}: its weights are loaded as they are; allowed: with head: new",
    "teaching.early_stopping=3": "teaching.early_stopping=3: the last epoch is then a worse one",
    "teaching.early_stopping=all": "early_stopping='all': to leave it unset, write none",
    "teaching.optimizer=adam": "teaching.optimizer='adam': must be 'sgd' or 'adamw'",
    "teaching.betas=[0.9]": "teaching.betas=[0.9]: must have at least 2 entries",
    "teaching.clip_norm=0": "teaching.clip_norm=0: must be greater than or equal to 0.000000001",
    "teaching.layer_decay=1.1": "teaching.layer_decay=1.1: must be less than or equal to 1",
    "teaching.views={count: 3}": "teaching.views.count: unknown key; allowed here: crop, ",
    "teaching.views={crop_padding: 9}": "teaching.views.crop_padding=9: images have 16 pixels",
    "networks.vgg.training={views: {crop_padding: 9}}": "vgg.training.views.crop_padding=9: images",
    "views.crop=resized\ndata.image_size=16\ndata.source_size=20\nteaching.views={crop: padded}": ""
    "teaching.views.crop="
    "'padded': padded crops have the size of the image; allowed: resized, or data.source_size",
    "data.image_size=16\ndata.source_size=20": "params.yaml: views.crop='padded': padded crops",
    "teaching.views={mixup: -1}": "teaching.views.mixup=-1: must be greater than or equal to 0",
    "networks.vgg.training={views: {crops: x}}": "networks.vgg.training.views.crops: unknown key",
    "views.mixup=-0.1": "views.mixup=-0.1: must be greater than or equal to 0",
    "views.magnitude=31": "views.magnitude=31: must be less than or equal to 30",
    "views={count: all, randaugment: 2}": "views.count='all': with crop: resized, randaugment,",
    "teaching.frozen=head": "teaching.frozen='head': must be 'backbone'",
    "distill.discriminator.optimizer=lion": "optimizer='lion': must be 'sgd' or 'adamw'",
    r'"\e[31m"=1': "params.yaml: \\x1b[31m: unknown key; allowed here: seed, dataset, student",
}


def change(params: dict[str, Any], assignment: str) -> None:
    key, value = assignment.split("=", 1)
    *path, last = [parse_yaml(key)] if key.startswith('"') else key.split(".")
    for part in path:
        params = params[part]
    params[last] = parse_yaml(value)


@pytest.mark.parametrize(("assignment", "message"), FAULTS.items())
def test_a_fault_is_one_line_with_key_value_and_what_is_allowed(
    assignment: str,
    message: str,
    raw_params: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for each in assignment.split("\n"):
        change(raw_params, each)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw_params))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml") as error:
        configure.main()
    fault, hint = str(error.value).split("\n")
    assert message in fault
    assert hint == "to undo changes of params.yaml: git checkout params.yaml"
    assert not (tmp_path / "artifacts").exists()


def test_the_advice_to_undo_works_for_a_value_of_the_same_length(tmp_path: Path) -> None:
    """Git takes a file of equal size and time for unchanged: it did, in one of three tries."""

    def git(*arguments: str) -> str:
        command = ("git", "-c", "user.name=a", "-c", "user.email=b", *arguments)
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    text = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "start")
    for _ in range(3):
        time.sleep(1 - time.time() % 1)  # the second in which git and we write
        path.write_text(text + "\n")
        git("checkout", "params.yaml")
        path.write_text(text.replace("student: resnet #", "student: nobody #"))
        result = subprocess.run(
            [sys.executable, "-m", "stages.configure"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert "student='nobody'" in result.stderr and "git checkout params.yaml" in result.stderr
        git("checkout", "params.yaml")
        assert path.read_text() == text


@pytest.mark.parametrize(
    ("library", "option"),
    [
        ("timm/resnet18", "checkpoint_path"),
        ("timm/resnet18", "pretrained"),
        ("timm/resnet18", "pretrained_cfg"),
        ("timm/resnet18", "pretrained_cfg_overlay"),
        ("torchvision/resnet18", "weights"),
    ],
)
def test_no_option_can_load_weights_without_a_digest(library: str, option: str) -> None:
    network = Network(arch=library, options={option: "/tmp/weights.pt"})
    with pytest.raises(UserError, match=rf"^options\.{option}='/tmp/weights\.pt': .*sha256"):
        check(network)


def test_a_weights_file_without_digest_gives_the_digest_to_copy(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    with pytest.raises(UserError) as error:
        parse(Network, {"arch": "vgg19", "weights": {"file": str(file)}}, source="here")
    assert str(error.value) == f"here: weights.sha256: missing; {file} has {sha256(file)}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: " + 3000 * "[", "line 2: nested more than 30 levels deep"),
        ("a: 1\nb: &x [1, *x]", "line 2: *x contains itself"),
        (
            "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 9)),
            "line 5: more than 100000 values, aliases included",
        ),
    ],
)
def test_yaml_that_would_explode_is_an_error_with_its_line(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml cannot be read: ") as error:
        load_params(path)
    assert message in str(error.value)


def test_anchors_are_allowed(raw_params: dict[str, Any], tmp_path: Path) -> None:
    shared = {"arch": "resnet18", "width": 0.25}
    raw_params["networks"] = dict.fromkeys(("vgg", "resnet", "preact"), shared)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw_params))
    assert "&id" in path.read_text()
    assert load_params(path).networks["preact"].width == 0.25


def test_what_is_seldom_meant_is_a_warning(raw_params: dict[str, Any]) -> None:
    for assignment in (
        "teaching.schedule=step", "teaching.milestones=[10, 50]", "distill.warmup_epochs=40",
        "runtime.checkpoint_minutes=0.1",
    ):  # fmt: skip
        change(raw_params, assignment)
    assert list(warnings(Params.model_validate(raw_params))) == [
        "teaching.milestones=[10, 50]: the run ends before 50, at 40",
        "distill.warmup_epochs=40: the run of 40 epoch(s) ends before the full rate",
        "runtime.checkpoint_minutes=0.1: so many checkpoints slow the training",
    ]


def test_a_frozen_backbone_without_weights_is_a_warning(raw_params: dict[str, Any]) -> None:
    change(raw_params, "distill.frozen=backbone")
    change(raw_params, "networks.vgg.training={frozen: backbone}")
    assert list(warnings(Params.model_validate(raw_params))) == [
        f"{key}.frozen='backbone': without weights, the backbone stays as it was drawn"
        for key in ("teaching or networks.vgg.training", "distill")
    ]


def test_a_library_is_not_imported_to_learn_whether_a_name_exists() -> None:
    code = (
        "import sys\nfrom meal.models.architectures import check\n"
        "from meal.models.settings import Network\n"
        "check(Network(arch='timm/vit_tiny_patch16_224.augreg_in21k'))\n"
        "assert not {'timm', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


NO_LABELS = "distill.label_weight=0"


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["cache.top_k=3", "distill.similarity.logits=l2", "distill.temperature=1"],
            "distill.similarity.logits='l2': cache",
        ),
        (
            ["cache.top_k=3", "cache.enabled=false", "distill.temperature=1"],
            "cache.top_k=3: cache.enabled: false stores no logits",
        ),
        (
            ["distill.gamma={logits: 0, blocks: 0}", "distill.adversarial=off", NO_LABELS],
            "distill.gamma: every weight of the loss is 0",
        ),
        (
            ["distill.norm=none", "distill.selection=mean", "distill.blocks=[1]"],
            "distill.norm='none': the blocks of",
        ),
        (["cache.top_k=3"], "cache.top_k=3: a temperature above 1 raises the probabilities that"),
        (["distill.pool=unlabelled", "distill.label_weight=1"], "label_weight=1: pool: unlabelled"),
        (
            ["distill.targets=image", "cache.enabled=false"],
            "distill.targets='image': cache.enabled: false keeps no outputs to average",
        ),
        (
            ["distill.targets=image", "views.cutmix=0.5"],
            "distill.targets='image': views.cutmix=0.5 mixes an image with another one",
        ),
        (
            ["distill.pool=labelled", "distill.labelled_share=0.5"],
            "labelled_share=0.5: a batch from",
        ),
    ],
)
def test_values_that_exclude_each_other_are_an_error(
    assignments: list[str], message: str, raw_params: dict[str, Any], tmp_path: Path
) -> None:
    for assignment in assignments:
        change(raw_params, assignment)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw_params))
    with pytest.raises(UserError, match=r"params\.yaml") as error:
        load_params(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", ["distill.pool=unlabelled", "distill.labelled_share=0.5"])
def test_a_pool_that_cannot_exist_is_an_error_before_anything_runs(
    setting: str, raw_params: dict[str, Any]
) -> None:
    change(raw_params, setting)
    checked_slices(Params.model_validate(raw_params), "params.yaml")
    change(raw_params, "data.labelled=all")
    with pytest.raises(UserError, match="every image of digits has a label; set"):
        checked_slices(Params.model_validate(raw_params), "params.yaml")


def test_one_seed_shifts_all_others_but_that_of_the_test_images(
    raw_params: dict[str, Any],
) -> None:
    def seeds(seed: int) -> dict[str, Any]:
        change(raw_params, f"seed={seed}")
        slices = checked_slices(Params.model_validate(raw_params), "params.yaml")
        return {
            "test": slices["prepare"]["data"]["test_seed"],
            "labels": slices["prepare"]["data"]["split_seed"],
            "vgg": slices["teachers/vgg"]["network"]["seed"],
            "views": slices["caches/vgg"]["views"]["seed"],
            "baseline": slices["baseline"]["network"]["seed"],
            "student": slices["distill"]["distill"]["seed"],
        }

    first, second = seeds(0), seeds(1)
    assert set(first.values()) == {0}
    assert second.pop("test") == 0
    assert 0 not in second.values()


def test_several_faults_give_one_line_each(raw_params: dict[str, Any], tmp_path: Path) -> None:
    change(raw_params, "distill.epochs=0")
    change(raw_params, "teaching.lr=fast")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw_params))
    with pytest.raises(UserError, match=r"distill\.epochs") as error:
        load_params(path)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "cannot be read"), ("- 1", "holds no keys"), ("", "holds no keys")],
)
def test_an_invalid_params_file_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_params(path)


def test_an_exponent_without_a_dot_is_a_number(raw_params: dict[str, Any], tmp_path: Path) -> None:
    # `dvc exp run -S distill.lr=1e-5` writes 1e-05, which YAML reads as a string.
    path = tmp_path / "params.yaml"
    raw_params["distill"]["lr"] = "1e-05"
    path.write_text(yaml.safe_dump(raw_params))
    assert load_params(path).distill.lr == 1e-5


def test_a_bare_off_is_not_false(raw_params: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    raw_params["distill"]["adversarial"] = False
    path.write_text(yaml.safe_dump(raw_params))
    assert load_params(path).distill.adversarial == "off"


def slices(raw_params: dict[str, Any], tmp_path: Path, *assignments: str) -> dict[str, Any]:
    for assignment in assignments:
        change(raw_params, assignment)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw_params))
    return resolve(load_params(path), DATASETS["digits"], {})


TAUGHT = {"teachers/vgg", "teachers/resnet", "teachers/preact"}


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("student=mobilenet", {"baseline", "distill", "export", "report"}),
        ("distill.seed=5", {"distill", "export", "report"}),
        ("baseline.seed=5", {"baseline", "report"}),
        ("baseline.lr=0.3", {"baseline", "report"}),
        ("distill.epochs=7", {"baseline", "distill", "export", "report"}),
        ("distill.lr=0.3", {"baseline", "distill", "export", "report"}),
        ("export.int8=true", {"export", "report"}),
        ("networks.vgg.seed=3", {"teachers/vgg", "report"}),
        ("networks.vgg.training={lr: 0.01}", {"teachers/vgg", "report"}),
        ("networks.vgg.training={views: {mixup: 1}}", {"teachers/vgg", "report"}),
        ("networks.resnet.training={lr: 0.01}", {"teachers/resnet", "report"}),  # not the student
        ("teaching.views={mixup: 1}", {*TAUGHT, "report"}),
        ("ensemble.weights=best", {"ensemble", "report"}),
        ("distill.optimizer=adamw", {"baseline", "distill", "export", "report"}),
        (
            "distill.early_stopping=3\ndistill.keep=best",
            {"baseline", "distill", "export", "report"},
        ),
        ("runtime.device=cpu", set()),
        ("data.split_seed=1", {"prepare", "report"}),
    ],
)
def test_a_parameter_changes_only_the_slices_that_it_affects(
    assignment: str, changed: set[str], raw_params: dict[str, Any], tmp_path: Path
) -> None:
    before = slices(raw_params, tmp_path)
    after = slices(raw_params, tmp_path, *assignment.split("\n"))
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_baseline_is_optimised_like_the_student(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    """Equal steps are not enough: another rate or decay would be another comparison."""
    flags = ["distill.epochs=7", "distill.batch_size=16", "distill.lr=0.2", "teaching.lr=0.3"]
    cut = slices(raw_params, tmp_path, *flags, "distill.weight_decay=0.1")
    training = cut["baseline"]["training"]
    assert set(training) == set(Training.model_fields)
    assert training == {name: cut["distill"]["distill"][name] for name in training}
    assert (training["epochs"], training["lr"], training["weight_decay"]) == (7, 0.2, 0.1)


def test_a_backbone_with_a_new_head_is_for_teacher_student_and_baseline(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    weights = {"file": str(ROOT / "params.yaml"), "sha256": "0" * 64}
    raw_params["networks"]["resnet"] |= {"weights": weights, "head": "new"}
    cut = slices(raw_params, tmp_path)
    for name in ("teachers/resnet", "baseline", "distill"):
        assert cut[name]["network"]["weights"]["sha256"] == "0" * 64
    assert cut["teachers/resnet"]["training"]["epochs"] == raw_params["teaching"]["epochs"]
    raw_params["networks"]["resnet"].pop("head")  # then it is a finished teacher
    cut = slices(raw_params, tmp_path)
    assert cut["baseline"]["network"]["weights"] is cut["distill"]["network"]["weights"] is None
    assert cut["teachers/resnet"]["training"] is None


def test_views_of_teachers_are_merged_key_by_key(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    flags = ("teaching.views={mixup: 0.5}", "networks.vgg.training={views: {erase: 0.2}}", "seed=1")
    cut = slices(raw_params, tmp_path, *flags)
    vgg, preact = (cut[f"teachers/{name}"]["views"] for name in ("vgg", "preact"))
    assert (vgg["mixup"], vgg["erase"]) == (0.5, 0.2)
    assert (preact["mixup"], preact["erase"]) == (0.5, 0.0)
    student = cut["distill"]["views"]
    assert (student["mixup"], student["seed"]) == (0.0, vgg["seed"])


def test_an_unlimited_number_of_views_is_no_fault_of_teachers(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    cut = slices(raw_params, tmp_path, "views.count=all", "teaching.views={randaugment: 2}")
    assert cut["caches/vgg"]["view_count"] == 25


def test_the_baseline_trains_to_the_end(raw_params: dict[str, Any], tmp_path: Path) -> None:
    flags = ("distill.early_stopping=3", "distill.keep=best")
    cut = slices(raw_params, tmp_path, *flags)
    assert cut["distill"]["distill"]["early_stopping"] == 3
    assert cut["baseline"]["training"]["early_stopping"] is None


def test_the_baseline_may_be_optimised_otherwise(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    flags = ["distill.lr=0.2", "distill.epochs=7", "baseline.lr=0.3", "baseline.ema=0.9"]
    cut = slices(raw_params, tmp_path, *flags)
    training = cut["baseline"]["training"]
    assert (training["lr"], training["ema"], training["epochs"]) == (0.3, 0.9, 7)
    shown = cut["report"]["training"]
    assert (shown["baseline"]["lr"], shown["student"]["lr"]) == (0.3, 0.2)
    assert cut["report"]["changed"]["baseline.lr"] == 0.3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("baseline.lr=-1", r"params.yaml: baseline.lr=-1: must be greater than or equal to 0.0+1"),
        ("baseline.rate=1", r"params.yaml: baseline.rate: unknown key; allowed here: .*warmup"),
        ("baseline.seed=x", r"params.yaml: baseline.seed='x': "),
        ("baseline.schedule=step", r"params.yaml: baseline.milestones=\[\]: schedule: step needs"),
    ],
)
def test_overrides_of_the_baseline_are_checked(
    assignment: str, message: str, raw_params: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        slices(raw_params, tmp_path, assignment)


def test_the_blocks_of_a_mean_need_a_cache(raw_params: dict[str, Any], tmp_path: Path) -> None:
    flags = ["cache.enabled=false", "distill.selection=mean"]
    slices(raw_params, tmp_path, *flags, "distill.blocks=[]")
    with pytest.raises(UserError, match=r"cache.enabled=false: .*allowed: .*distill.blocks: \[\]"):
        slices(raw_params, tmp_path, "distill.blocks=[1]")


def test_relations_need_one_teacher_for_a_batch(raw_params: dict[str, Any], tmp_path: Path) -> None:
    flags = ["distill.similarity.blocks=relations", "distill.selection=random_per_image"]
    slices(raw_params, tmp_path, *flags, "distill.blocks=[]")
    slices(raw_params, tmp_path, "distill.blocks=[1]", "distill.selection=random")
    with pytest.raises(UserError, match=r"relations.*selection: random or mean, or blocks: \[\]"):
        slices(raw_params, tmp_path, *flags)


def test_the_baselines_learning_rate_follows_the_students_schedule(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    flags = ["teaching.schedule=step", "teaching.milestones=[20]", "distill.warmup_epochs=3"]
    training = slices(raw_params, tmp_path, *flags)["baseline"]["training"]
    assert (training["schedule"], training["milestones"]) == ("cosine", [])
    assert training["warmup_epochs"] == 3


def test_a_networks_seed_does_not_affect_the_student(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    before = slices(raw_params, tmp_path)
    after = slices(raw_params, tmp_path, "networks.resnet.seed=9")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"teachers/resnet", "report"}


def test_flip_auto_follows_the_dataset(raw_params: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw_params))
    params = load_params(path)
    for dataset, flip in (("fashion_mnist", True), ("digits", False)):
        cut = resolve(params, DATASETS[dataset], {})
        assert cut["distill"]["views"]["flip"] is flip


def test_configure_needs_neither_torch_nor_timm() -> None:
    code = "import sys, stages.configure; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "text", ["a: 2020-13-45", "a: !!int abc", "a: !!bool abc", "a: !!timestamp abc", "a: 0x_"]
)
def test_yaml_that_names_no_value_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml cannot be read") as error:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)
