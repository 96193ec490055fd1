"""The exported folder: the same answers in PyTorch, ONNX Runtime and timm, and nothing foreign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch import Tensor, nn

import meal
from meal.core.digests import fingerprint, sha256
from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.export import onnx_file, parity
from meal.export.bundle import Finished, export
from meal.export.parity import Parity
from meal.models.architectures import own_digest
from meal.predict.session import OnnxStudent
from tests.export.conftest import config, finished, pixels
from tests.files import picture
from tests.stages.test_corruption import flip


def probabilities(run: Finished) -> np.ndarray:
    """What the student answers in the pipeline."""
    from meal.models.prediction import split_logits

    logits = split_logits(run.student.network, run.data, "test", torch.device("cpu"))
    return torch.from_numpy(logits).softmax(dim=1).numpy()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_onnx_file_takes_pixels_and_answers_as_the_student(
    dtype: str, run: Finished, tmp_path: Path
) -> None:
    expected = probabilities(run)
    export(config(input=dtype), run, tmp_path / "out")
    student = OnnxStudent(tmp_path / "out")
    images = pixels(run.data)
    assert student.card.classes == ("left", "middle", "right")
    for batch in (images, images[:1]):
        found = student.probabilities(batch)
        assert np.allclose(found, expected[: len(batch)], atol=1e-6)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    model = onnx.load(tmp_path / "out" / "model.onnx")
    kinds = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
    taken = model.graph.input[0].type.tensor_type
    assert taken.elem_type == kinds[dtype] and taken.shape.dim[0].dim_param
    facts = {each.key: each.value for each in model.metadata_props}
    assert facts["classes"] == "left\nmiddle\nright" and facts["input_size"] == "16x16x1"
    assert facts["weights_sha256"] == sha256(tmp_path / "out" / "model.safetensors")
    # The exporter notes the paths of the source beside every node.
    assert b".py" not in (tmp_path / "out" / "model.onnx").read_bytes()
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    found = card["onnx"]["parity"]
    assert (found["images"], found["batch_sizes"]) == (30, [1, 7, 128])
    assert found["changed_predictions"] == 0 and found["largest_difference"] < 1e-5


def test_a_second_export_gives_the_same_bytes(run: Finished, tmp_path: Path) -> None:
    for name in ("first", "second"):
        export(config(int8=True), run, tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert set(files) == {
        "README.md", "model.int8.onnx", "model.json", "model.onnx", "model.safetensors",
    }  # fmt: skip
    for name, content in files.items():
        assert (tmp_path / "second" / name).read_bytes() == content, name


def test_a_quantised_file_answers_almost_alike_and_its_error_is_stated(
    run: Finished, tmp_path: Path
) -> None:
    export(config(int8=True), run, tmp_path / "out")
    quantised = OnnxStudent(tmp_path / "out", "model.int8.onnx")
    found = quantised.probabilities(pixels(run.data))
    expected = probabilities(run)
    assert 0 < np.abs(found - expected).max() < 0.3
    stated = quantised.card.content["onnx"]["int8"]["top1_error"]
    wrong = found.argmax(axis=1) != run.data.labels("test").numpy()
    assert stated == pytest.approx(100 * wrong.mean(), abs=0.01)
    kinds = {node.op_type for node in onnx.load(tmp_path / "out" / "model.int8.onnx").graph.node}
    assert "QuantizeLinear" in kinds


def test_pytorch_loads_the_folder(run: Finished, tmp_path: Path) -> None:
    expected = probabilities(run)
    export(config(), run, tmp_path / "out")
    student = meal.load(tmp_path / "out")
    assert student.classes == ("left", "middle", "right") and not student.training
    images = pixels(run.data)
    Image.fromarray(images[4, :, :, 0]).save(tmp_path / "four.png")
    for image in (tmp_path / "four.png", images[4, :, :, 0], Image.open(tmp_path / "four.png")):
        found = student(student.preprocess(image)).softmax(dim=1)[0]
        assert np.allclose(found.detach().numpy(), expected[4], atol=1e-6)


def test_a_network_with_its_own_input_is_exported_whole(data: Prepared, tmp_path: Path) -> None:
    """The adapter resizes and normalises inside the ONNX file."""
    run = finished(data, input={"size": 24, "mean": [0.5] * 3, "std": [0.2] * 3})
    expected = probabilities(run)
    export(config(), run, tmp_path / "out")
    assert np.allclose(
        OnnxStudent(tmp_path / "out").probabilities(pixels(data)), expected, atol=1e-4
    )
    found = meal.load(tmp_path / "out").eval()
    image = found.preprocess(pixels(data)[0, :, :, 0])
    assert np.allclose(found(image).softmax(1)[0].detach().numpy(), expected[0], atol=1e-6)


@pytest.mark.parametrize("inputs", [None, {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}])
def test_timm_loads_a_student_of_its_own(
    inputs: dict[str, Any] | None, data: Prepared, tmp_path: Path
) -> None:
    import timm

    run = finished(data, arch="timm/resnet10t", input=inputs)
    expected = probabilities(run)
    export(config(), run, tmp_path / "out")
    own = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    student = meal.load(tmp_path / "out")
    image = student.preprocess(pixels(data)[0, :, :, 0])
    if inputs:
        adapter: Any = student.network.adapter
        image = adapter(image)
    assert np.allclose(own(image).softmax(1)[0].detach().numpy(), expected[0], atol=1e-6)
    settings: Any = own.pretrained_cfg
    assert settings["label_names"] == ["left", "middle", "right"]
    written = json.loads((tmp_path / "out" / "config.json").read_text())["pretrained_cfg"]
    assert not {"license", "origin_url", "tag"} & set(written)  # those of timm's own weights
    assert settings["input_size"] == ((3, 32, 32) if inputs else (1, 16, 16))
    assert list(settings["mean"]) == ([0.5, 0.5, 0.5] if inputs else data.mean)


class Stubborn(nn.Module):
    """A network whose steps depend on its input, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits if float(logits.sum()) > 0 else logits + 1


def test_a_network_that_cannot_be_exported_is_named_and_the_folder_made(
    run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = type(run.student)(run.student.spec, Stubborn().eval())
    export(config(), Finished(loaded, run.data, run.predictions, run.metrics), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "model.json", "model.safetensors",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "no model.onnx: PyTorch's exporter cannot take small: " in said
    reason = json.loads((tmp_path / "out" / "model.json").read_text())["onnx"]["reason"]
    assert len(reason.splitlines()) == 1 and reason in said
    assert "There is no `model.onnx`" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match=r"holds no model.onnx: .*; use meal.load"):
        OnnxStudent(tmp_path / "out")


def test_an_onnx_file_that_differs_fails_the_stage(
    run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = onnx_file.torch.onnx.export

    def broken(module: nn.Module, *arguments: Any, **options: Any) -> Any:
        with torch.no_grad():  # an exporter that gets one weight wrong
            weight = next(iter(module.parameters()))
            weight[0] += 1
            program = usual(module, *arguments, **options)
            weight[0] -= 1
        return program

    monkeypatch.setattr(onnx_file.torch.onnx, "export", broken)
    with pytest.raises(UserError, match=r"model.onnx differs from the student: .* predictions"):
        export(config(), run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_prediction_fails_unless_it_is_a_tie() -> None:
    parity.Parity(10, (1,), 0, 2, 1e-7).check()
    for worse in (Parity(10, (1,), 1, 0, 1e-7), Parity(10, (1,), 0, 0, 2e-4)):
        with pytest.raises(UserError, match="differs from the student"):
            worse.check()


def test_the_model_card_is_one_that_hugging_face_reads(run: Finished, tmp_path: Path) -> None:
    export(config(name="my_student"), run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    facts: Any = ModelCard(text).data
    assert facts.pipeline_tag == "image-classification"
    (result,) = facts.eval_results
    error = run.metrics["student"]["top1_error"]
    assert result.metric_value == pytest.approx(1 - error / 100)
    for words in ("95% intervals", "Calibration", "Cost", "Licence: none", "Limits", "one (tiny"):
        assert words in text
    assert f"| **this student** | {error:.2f} (" in text and "\n\n\n" not in text


def hostile(folder: Path, **changes: Any) -> None:
    """Change the card and seal it again, as an attacker would."""
    card = json.loads((folder / "model.json").read_text())
    del card["fingerprint"]
    card["network"] |= changes
    (folder / "model.json").write_text(json.dumps({**card, "fingerprint": fingerprint(card)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "timm/hf_hub:someone/model"}, "unknown"),
        (
            {"arch": "timm/resnet10t", "options": {"checkpoint_path": "x.pth"}},
            "cannot load weights",
        ),
        ({"arch": "os:system"}, "your own networks belong"),
        ({"arch": "networks.nothing:at_all"}, "there is no file"),
        ({"width": 1e9}, "width=1000000000.0"),
    ],
)
def test_a_hostile_card_is_refused(
    changes: dict[str, Any], message: str, run: Finished, tmp_path: Path
) -> None:
    export(config(), run, tmp_path / "out")
    hostile(tmp_path / "out", **changes)
    with pytest.raises(UserError, match=message):
        meal.load(tmp_path / "out")


def test_code_beside_the_card_is_never_run(
    run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    export(config(), run, folder)
    (folder / "networks").mkdir()
    code = "raise SystemExit('this code ran')\n"
    (folder / "networks" / "evil.py").write_text(code)
    monkeypatch.chdir(folder)
    digest = own_digest("networks.evil:f")
    hostile(folder, arch="networks.evil:f", source=digest)
    with pytest.raises(UserError, match="holds code in networks/"):
        meal.load(folder)
    monkeypatch.chdir(tmp_path)  # and code that is not what the card was made with, nowhere
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "evil.py").write_text(code + "#")
    with pytest.raises(UserError, match="is not the code that"):
        meal.load(folder)


def test_outputs_that_are_not_numbers_fail_the_stage(run: Finished, tmp_path: Path) -> None:
    with torch.no_grad():
        list(run.student.network.parameters())[-1].fill_(float("nan"))
    with pytest.raises(UserError, match="probabilities are not finite"):
        export(config(), run, tmp_path / "out")
    for wrong in (Parity(10, (1,), 0, 0, float("nan")), Parity(10, (1,), 0, 0, 1.04e-4)):
        with pytest.raises(UserError, match="differs from the student"):
            wrong.check()


@pytest.mark.parametrize("fault", [ImportError("no onnxscript"), OSError(28, "No space left")])
def test_a_fault_of_the_machine_is_none_of_the_network(
    fault: Exception, run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("the exporter gives up") from fault

    monkeypatch.setattr(onnx_file.torch.onnx, "export", broken)
    with pytest.raises((type(fault), UserError), match=r"no onnxscript|No space left"):
        export(config(), run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"files": []}, {"classes": "left"}, {"classes": ["left"]}, {"onnx": 3},
        {"input": {"side": 0}}, {"input": {"side": 300_000}}, {"input": {"size": 17}},
        {"input": {"dtype": "float64"}}, {"input": {"mean": ["x"]}}, {"input": {"std": [0]}},
        {"input": {"channels": 2}}, {"input": 5}, {"version": 2},
    ],
)  # fmt: skip
def test_a_wrong_card_is_one_line(changes: dict[str, Any], run: Finished, tmp_path: Path) -> None:
    export(config(), run, tmp_path / "out")
    path = tmp_path / "out" / "model.json"
    card = json.loads(path.read_text())
    del card["fingerprint"]
    for key, value in changes.items():
        card[key] = {**card[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps({**card, "fingerprint": fingerprint(card)}))
    with pytest.raises(UserError, match=r"model\.json") as error:
        OnnxStudent(tmp_path / "out")
    assert "\n" not in str(error.value)


def test_images_from_memory_are_turned_and_converted_like_files(
    data: Prepared, run: Finished, tmp_path: Path
) -> None:
    export(config(), run, tmp_path / "out")
    student = meal.load(tmp_path / "out")
    turned = picture(3, size=(24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    expected = student.preprocess(tmp_path / "turned.jpg")
    assert torch.allclose(
        student.preprocess(Image.open(tmp_path / "turned.jpg")), expected, atol=0.05
    )
    for mode in ("CMYK", "YCbCr", "L", "RGBA", "P"):
        assert student.preprocess(turned.convert(mode)).shape == expected.shape
    assert student.preprocess(np.zeros((20, 20, 1), np.uint8)).shape == expected.shape
    shapes = ((0, 0, 3), (5,), (20, 20, 2), (20, 20, 4), (3, 20, 20))
    wrongs: list[Any] = [np.zeros((20, 20)), *(np.zeros(shape, np.uint8) for shape in shapes)]
    for wrong in wrongs:
        with pytest.raises(UserError, match="is no image"):
            student.preprocess(wrong)
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(UserError, match=r"bad\.png: not an image"):
        student.preprocess(tmp_path / "bad.png")


def test_damage_is_noticed(run: Finished, tmp_path: Path) -> None:
    export(config(), run, tmp_path / "out")
    for name in ("model.onnx", "model.json"):
        flip(tmp_path / "out" / name)
        with pytest.raises(UserError, match=name):
            OnnxStudent(tmp_path / "out")
