"""Names that other people's scripts import: the contract of the first section of the compatibility page."""

from __future__ import annotations

import importlib
import inspect

import pytest

NAMES = {
    "models.common": """autopad Conv DWConv DWConvTranspose2d Bottleneck BottleneckCSP CrossConv C3 C3x C3TR C3SPP
        C3Ghost SPP SPPF Focus GhostConv GhostBottleneck Contract Expand Concat TransformerLayer TransformerBlock
        DetectMultiBackend BiLevelRoutingAttention BiFormerBlock C3BiFormer""",
    "models.yolo": "Detect BaseModel DetectionModel Model parse_model",
    "models.experimental": "attempt_load Ensemble MixConv2d",
    "utils.general": """non_max_suppression xyxy2xywh xywh2xyxy xywhn2xyxy xyxy2xywhn scale_boxes clip_boxes
        check_img_size check_dataset check_file check_yaml increment_path colorstr LOGGER init_seeds make_divisible
        strip_optimizer check_imshow check_requirements check_suffix print_args Profile yaml_load yaml_save
        intersect_dicts xyn2xy segments2boxes labels_to_class_weights labels_to_image_weights one_cycle get_latest_run
        cv2""",
    "utils.augmentations": "letterbox augment_hsv random_perspective mixup copy_paste box_candidates",
    "utils.dataloaders": """create_dataloader LoadImages LoadImagesAndLabels IMG_FORMATS VID_FORMATS img2label_paths
        exif_size letterbox""",
    "utils.loss": "ComputeLoss",
    "utils.metrics": "ap_per_class bbox_iou box_iou bbox_ioa ConfusionMatrix fitness process_batch compute_ap",
    "utils.autoanchor": "check_anchors kmean_anchors check_anchor_order",
    "utils.torch_utils": """select_device ModelEMA EarlyStopping smart_optimizer de_parallel model_info
        fuse_conv_and_bn time_sync smart_inference_mode is_parallel""",
    "utils.plots": "Annotator colors save_one_box plot_images plot_results plot_labels output_to_target",
    "train": "run parse_opt main train",
    "val": "run parse_opt main process_batch",
    "detect": "run parse_opt main",
}

SIGNATURES = {
    "utils.torch_utils.select_device": "device='', batch_size=0, newline=True",
    "utils.torch_utils.smart_optimizer": "model, name='Adam', lr=0.001, momentum=0.9, decay=1e-05",
    "utils.torch_utils.ModelEMA": "model, decay=0.9999, tau=2000, updates=0",
    "utils.torch_utils.model_info": "model, verbose=False, imgsz=640",
    "utils.general.check_img_size": "imgsz, s=32, floor=0",
    "utils.general.increment_path": "path, exist_ok=False, sep='', mkdir=False",
    "utils.general.init_seeds": "seed=0, deterministic=False",
    "utils.general.intersect_dicts": "a, b, exclude=()",
    "utils.general.one_cycle": "y1=0.0, y2=1.0, steps=100",
    "utils.general.strip_optimizer": "f='best.pt', s=''",
    "utils.general.Profile": "t=0.0",
    "utils.general.check_dataset": "data, autodownload=True",
    "utils.general.xywhn2xyxy": "x, w=640, h=640, padw=0, padh=0",
    "utils.general.xyxy2xywhn": "x, w=640, h=640, clip=False, eps=0.0",
    "utils.metrics.bbox_iou": "box1, box2, xywh=True, GIoU=False, DIoU=False, CIoU=False, eps=1e-07",
    "models.experimental.attempt_load": "weights, device=None, inplace=True, fuse=True",
    "models.common.DetectMultiBackend": (
        "weights='yolov5s.pt', device='cpu', dnn=False, data=None, fp16=False, fuse=True"
    ),
    "models.common.Conv": "c1, c2, k=1, s=1, p=None, g=1, d=1, act=True",
    "models.common.C3": "c1, c2, n=1, shortcut=True, g=1, e=0.5",
    "models.yolo.Detect": "nc=80, anchors=(), ch=(), inplace=True",
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module].split()])
def test_name_is_there(module, name):
    assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("path", sorted(SIGNATURES))
def test_signature_is_that_of_the_page(path):
    module, _, name = path.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    shown = [
        parameter.name if parameter.default is inspect.Parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in parameters
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert ", ".join(shown) == SIGNATURES[path]


@pytest.mark.parametrize("module", [name for name in NAMES if name.startswith(("utils.general", "utils.torch_utils"))])
def test_all_lists_every_name(module):
    assert set(NAMES[module].split()) <= set(importlib.import_module(module).__all__)
