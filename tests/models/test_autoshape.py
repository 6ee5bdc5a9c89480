"""AutoShape: pictures in any form, of any size, give detect.py's boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_detector import NAMES, picture_detector, random_picture, save_picture_detector
from PIL import Image
from torch import nn

import detect
from models.common import AutoShape, DetectMultiBackend
from models.experimental import attempt_load
from utils.boxes import scale_boxes
from utils.errors import DatasetError, OptionError
from utils.image_io import write_image
from utils.nms import non_max_suppression


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_picture_detector(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture
def model(weights) -> AutoShape:
    return AutoShape(DetectMultiBackend(weights))


class OtherFormat(nn.Module):
    """A detector as a file of another format gives it: one input shape, no parameters, one tensor."""

    pt, fp16 = False, False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names, self.stride, self.device = network.names, network.stride, torch.device("cpu")
        self.hw = (64, 128)
        self.seen: list[torch.Size] = []
        self.hidden = [network]  # in a list, so that it is no submodule

    def forward(self, im: torch.Tensor, augment: bool = False) -> torch.Tensor:
        self.seen.append(im.shape)
        return self.hidden[0](im)[0]


# -- the same as detect.py -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("height_width", [(96, 128), (128, 96), (64, 64), (97, 41), (33, 500), (20, 30), (641, 320)])
@pytest.mark.parametrize("size", [64, 100])
def test_boxes_are_those_of_detect(weights, model, tmp_path, height_width, size):
    height, width = height_width
    write_image(tmp_path / "a.png", random_picture(height, width))
    detect.run(
        weights=[str(weights)],
        source=str(tmp_path / "a.png"),
        imgsz=[size],
        device="cpu",
        save_txt=True,
        save_conf=True,
        save_format=1,
        nosave=True,
        project=str(tmp_path),
    )
    rows = np.loadtxt(tmp_path / "exp" / "labels" / "a.txt", ndmin=2)[::-1]  # class, corners, confidence; best first
    (found,) = model(tmp_path / "a.png", size=size).xyxy
    assert len(rows) > 5
    expected = np.concatenate([rows[:, 1:5] * [width, height, width, height], rows[:, 5:], rows[:, :1]], 1)
    found = torch.cat([found[:, :4].round(), found[:, 4:]], 1).double().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)  # of a label file's six digits


def test_boxes_are_those_of_the_steps_by_hand(model):
    pixels = random_picture(64, 64)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        (expected,) = non_max_suppression(model.model(batch), max_det=1000)
    expected[:, :4] = scale_boxes((64, 64), expected[:, :4], (64, 64))
    torch.testing.assert_close(model(pixels, size=64).pred[0], expected, atol=1e-3, rtol=1e-4)
    assert len(model(pixels[..., ::-1], size=64).pred[0]) != len(expected)  # the order of channels matters


# -- forms and sizes -----------------------------------------------------------------------------------------------


def test_all_forms_give_the_same_boxes(model, tmp_path):
    pixels, file = random_picture(96, 128), tmp_path / "a.png"
    write_image(file, np.ascontiguousarray(pixels[..., ::-1]))
    forms = [str(file), file, Image.open(file), pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels)]
    together = model(forms, size=64)
    assert together.s == (6, 3, 64, 64) and len(together) == 6
    for form, boxes in zip(forms, together.pred, strict=True):
        torch.testing.assert_close(boxes, together.pred[0])
        if not isinstance(form, torch.Tensor):
            torch.testing.assert_close(model(form, size=64).pred[0], boxes, atol=1e-2, rtol=1e-4)
    assert together.files == ["a.jpg"] * 3 + ["image3.jpg", "image4.jpg", "image5.jpg"]


@pytest.mark.parametrize(
    ("sizes", "size", "expected"),
    [
        ([(96, 128)], 64, (64, 64)),
        ([(40, 128)], 128, (64, 128)),
        ([(40, 128)], 640, (224, 640)),
        ([(40, 128), (50, 100)], 128, (64, 128)),
        ([(40, 128), (128, 40)], 128, (128, 128)),
        ([(40, 128), (64, 64)], 128, (128, 128)),
        ([(20, 128), (128, 50)], (64, 128), (128, 128)),  # of a pair the larger counts
        ([(1, 1000), (3000, 2)], 64, (64, 64)),
    ],
)
def test_one_shape_for_all_pictures(model, sizes, size, expected):
    pictures = [random_picture(*hw, seed) for seed, hw in enumerate(sizes)]
    results = model([picture.transpose(2, 0, 1) for picture in pictures], size=size)
    assert results.s == (len(sizes), 3, *expected)
    for boxes, picture in zip(results.pred, pictures, strict=True):
        height, width = picture.shape[:2]
        assert (boxes[:, :4] >= 0).all() and (boxes[:, [0, 2]] <= width).all() and (boxes[:, [1, 3]] <= height).all()
    assert all(time > 0 for time in results.t)


def test_nothing_in_nothing_out(model):
    results = model([])
    assert len(results) == 0 and results.pred == results.xywhn == [] and str(results) == "no images"
    assert results.render() == results.crop(save=False) == results.pandas().xyxy == results.tolist() == []


def test_a_tensor_goes_straight_to_the_model(model):
    batch = torch.rand(2, 3, 64, 96)
    predictions, levels = model(batch)
    with torch.inference_mode():
        expected, _ = model.model(batch)
    assert predictions.shape == (2, 8 * 12 * 2, 7) and len(levels) == 1
    torch.testing.assert_close(predictions, expected)


def test_a_file_of_one_shape_gets_that_shape():
    network = picture_detector().eval()
    backend = OtherFormat(network)
    pictures = [random_picture(40, 30), random_picture(64, 128)]
    for picture in pictures:
        AutoShape(backend)([picture], size=640)
    assert backend.seen == [(1, 3, 64, 128)] * 2
    (boxes,) = AutoShape(backend)(pictures[1]).pred
    (expected,) = AutoShape(network)(pictures[1], size=128).pred
    torch.testing.assert_close(boxes, expected, atol=1e-2, rtol=1e-4)


# -- settings ------------------------------------------------------------------------------------------------------


def test_settings_are_attributes(model):
    picture = random_picture(96, 128)

    def found(**settings) -> torch.Tensor:
        changed = AutoShape(model.model, verbose=False)
        for name, value in settings.items():
            assert hasattr(changed, name)
            setattr(changed, name, value)
        return changed(picture, size=64).pred[0]

    every = found()
    assert set(every[:, 5].tolist()) == {0.0, 1.0} and every[:, 4].min() > 0.25
    torch.testing.assert_close(found(conf=0.6), every[every[:, 4] > 0.6])
    torch.testing.assert_close(found(classes=[1]), every[every[:, 5] == 1])
    torch.testing.assert_close(found(classes=1), found(classes=[1]))
    torch.testing.assert_close(found(max_det=3), every[:3])
    assert len(found(iou=0.1)) < len(every) < len(found(iou=0.9))
    assert len(found(multi_label=True)) > len(every) > len(found(agnostic=True, iou=0.1))
    torch.testing.assert_close(found(amp=True), every)  # on the CPU it changes nothing


@pytest.mark.parametrize("size", [64.0, np.int64(64), [64], (48, 64), np.array([64, 64])])
def test_sizes_of_any_kind(model, size):
    assert model(random_picture(64, 64), size=size).s == (1, 3, 64, 64)


def test_augmented_and_profiled(model, caplog):
    picture = random_picture(96, 128)
    assert len(model(picture, size=64, augment=True).pred[0]) != len(model(picture, size=64).pred[0])
    bare = AutoShape(picture_detector())
    with caplog.at_level("INFO"):
        bare(picture, size=64, profile=True)
        model(picture, size=64, profile=True)
        AutoShape(OtherFormat(picture_detector().eval()))(picture, profile=True)
    assert sum("Conv" in line for line in caplog.messages) == 3 * 2


@pytest.mark.parametrize("wrapped", ["model", "backend", "ensemble"])
def test_what_can_be_wrapped(weights, wrapped):
    made = {
        "model": picture_detector,
        "backend": lambda: DetectMultiBackend(weights),
        "ensemble": lambda: attempt_load([weights, weights]),
    }
    model = AutoShape(made[wrapped]())
    assert model.names == NAMES and model.nc == 2 and model.stride == 32 and model.yaml["nc"] == 2
    assert not model.model.training
    assert len(model(random_picture(64, 64), size=64).pred[0]) > 5


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_on_the_cpu(model, precision):
    picture = random_picture(96, 128)
    single = model(picture, size=64).pred[0]
    other = model.to(precision)(picture, size=64).pred[0]
    assert other.dtype == torch.float32
    sure = single[single[:, 4] > 0.5]
    nearest = torch.cdist(sure[:, :4], other[:, :4]).min(1).values
    assert len(sure) > 10 and (nearest < 3).float().mean() > 0.8


def test_results_can_be_changed(model):
    (boxes,) = model(random_picture(64, 64), size=64).pred
    boxes[:, 4] += 1  # an inference tensor would refuse
    assert not boxes.requires_grad


@pytest.mark.parametrize("size", [0, -64, (64, 0), (64, 64, 64), [], "64", None])
def test_impossible_sizes(model, size):
    with pytest.raises(OptionError, match="size="):
        model(random_picture(64, 64), size=size)


def test_impossible_pictures_and_thresholds(model):
    with pytest.raises(DatasetError, match="nothing is fetched"):
        model("https://example.org/a.jpg")
    model.conf = 25
    with pytest.raises(OptionError, match="25"):
        model(random_picture(64, 64), size=64)


@pytest.mark.gpu
def test_half_and_mixed_precision_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    picture = random_picture(96, 128)
    single = AutoShape(picture_detector())(picture, size=64).pred[0]
    half, mixed = AutoShape(picture_detector()).cuda().half(), AutoShape(picture_detector()).cuda()
    mixed.amp = True
    for model in (AutoShape(picture_detector()).cuda(), half, mixed):
        (found,) = model(picture, size=64).pred
        assert found.is_cuda and found.dtype == torch.float32
        sure = single[single[:, 4] > 0.5]
        assert (torch.cdist(sure[:, :4], found[:, :4].cpu()).min(1).values < 3).float().mean() > 0.8
        assert found.shape[1] == 6 and len(model(picture, size=64).pandas().xyxy[0]) == len(found)
