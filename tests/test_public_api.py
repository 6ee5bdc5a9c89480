"""Names that other people's scripts import: the contract of the first section of the compatibility page."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

NAMES = {
    "models.common": """autopad Conv DWConv DWConvTranspose2d Bottleneck BottleneckCSP CrossConv C3 C3x C3TR C3SPP
        C3Ghost SPP SPPF Focus GhostConv GhostBottleneck Contract Expand Concat TransformerLayer TransformerBlock
        DetectMultiBackend AutoShape Detections BiLevelRoutingAttention BiFormerBlock C3BiFormer FullAttention
        FullAttentionBlock WindowAttention WindowAttentionBlock AxialAttention AxialAttentionBlock DilatedAttention
        DilatedAttentionBlock DeformableAttention DeformableAttentionBlock""",
    "models.yolo": "Detect BaseModel DetectionModel Model parse_model",
    "models.experimental": "attempt_load Ensemble MixConv2d",
    "utils.general": """non_max_suppression xyxy2xywh xywh2xyxy xywhn2xyxy xyxy2xywhn scale_boxes clip_boxes
        check_img_size check_dataset check_file check_yaml increment_path colorstr LOGGER init_seeds make_divisible
        strip_optimizer check_imshow check_requirements check_suffix print_args Profile yaml_load yaml_save
        intersect_dicts xyn2xy segments2boxes labels_to_class_weights labels_to_image_weights one_cycle get_latest_run
        cv2""",
    "utils.augmentations": "letterbox augment_hsv random_perspective mixup copy_paste box_candidates",
    "utils.dataloaders": """create_dataloader LoadImages LoadStreams LoadScreenshots LoadImagesAndLabels IMG_FORMATS
        VID_FORMATS img2label_paths exif_size letterbox""",
    "utils.loss": "ComputeLoss",
    "utils.metrics": "ap_per_class bbox_iou box_iou bbox_ioa ConfusionMatrix fitness process_batch compute_ap",
    "utils.autoanchor": "check_anchors kmean_anchors check_anchor_order",
    "utils.torch_utils": """select_device ModelEMA EarlyStopping smart_optimizer de_parallel model_info
        fuse_conv_and_bn time_sync smart_inference_mode is_parallel""",
    "utils.plots": "Annotator colors save_one_box plot_images plot_results plot_labels output_to_target",
    "train": "run parse_opt main train",
    "val": "run parse_opt main process_batch",
    "detect": "run parse_opt main",
    "export": "run parse_opt main",
    "hubconf": """custom yolov5n yolov5s yolov5m yolov5l yolov5x yolov5n6 yolov5s6 yolov5m6 yolov5l6 yolov5x6
        yolov5n_biformer yolov5s_biformer yolov5m_biformer yolov5l_biformer yolov5x_biformer""",
}

_NAMED = "pretrained=True, channels=3, classes=80, autoshape=True, _verbose=True, device=None"
SIGNATURES = {
    **{f"hubconf.{name}": _NAMED for name in NAMES["hubconf"].split()[1:]},
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
    "models.common.AutoShape": "model, verbose=True",
    "models.common.AutoShape.forward": "self, ims, size=640, augment=False, profile=False",
    "models.common.Detections": "ims, pred, files, times=(0.0, 0.0, 0.0), names=None, shape=None",
    "models.common.Detections.show": "self, labels=True",
    "models.common.Detections.save": "self, labels=True, save_dir='runs/detect/exp', exist_ok=False",
    "models.common.Detections.render": "self, labels=True",
    "models.common.Detections.crop": "self, save=True, save_dir='runs/detect/exp', exist_ok=False",
    "hubconf.custom": "path, autoshape=True, _verbose=True, device=None",
    "models.common.Conv": "c1, c2, k=1, s=1, p=None, g=1, d=1, act=True",
    "models.common.C3": "c1, c2, n=1, shortcut=True, g=1, e=0.5",
    "utils.augmentations.augment_hsv": "im, hgain=0.5, sgain=0.5, vgain=0.5",
    "utils.augmentations.random_perspective": (
        "im, targets=(), segments=(), degrees=10, translate=0.1, scale=0.1, shear=10, perspective=0.0, border=(0, 0)"
    ),
    "utils.augmentations.mixup": "im, labels, im2, labels2",
    "utils.augmentations.copy_paste": "im, labels, segments, p=0.5",
    "utils.autoanchor.check_anchors": "dataset, model, thr=4.0, imgsz=640",
    "utils.autoanchor.kmean_anchors": "dataset, n=9, img_size=640, thr=4.0, gen=1000, verbose=True",
    "models.yolo.Detect": "nc=80, anchors=(), ch=(), inplace=True",
    "utils.augmentations.letterbox": (
        "im, new_shape=(640, 640), color=(114, 114, 114), auto=True, scaleFill=False, scaleup=True, stride=32"
    ),
    "utils.augmentations.box_candidates": "box1, box2, wh_thr=2, ar_thr=100, area_thr=0.1, eps=1e-16",
    "utils.dataloaders.create_dataloader": (
        "path, imgsz, batch_size, stride, single_cls=False, hyp=None, augment=False, cache=False, pad=0.0, "
        "rect=False, rank=-1, workers=8, image_weights=False, quad=False, prefix='', shuffle=False, seed=0"
    ),
    "utils.dataloaders.LoadImagesAndLabels": (
        "path, img_size=640, batch_size=16, augment=False, hyp=None, rect=False, image_weights=False, "
        "cache_images=False, single_cls=False, stride=32, pad=0.0, min_items=0, prefix=''"
    ),
    "utils.dataloaders.LoadImages": "path, img_size=640, stride=32, auto=True, transforms=None, vid_stride=1",
    "utils.general.non_max_suppression": (
        "prediction, conf_thres=0.25, iou_thres=0.45, classes=None, agnostic=False, multi_label=False, "
        "labels=(), max_det=300, nm=0"
    ),
    "utils.general.clip_boxes": "boxes, shape",
    "utils.general.scale_boxes": "img1_shape, boxes, img0_shape, ratio_pad=None",
    "utils.general.check_yaml": "file, suffix=('.yaml', '.yml')",
    "utils.general.check_file": "file, suffix=''",
    "utils.general.make_divisible": "x, divisor",
    "utils.metrics.box_iou": "box1, box2, eps=1e-07",
    "utils.metrics.bbox_ioa": "box1, box2, eps=1e-07",
    "utils.metrics.process_batch": "detections, labels, iouv",
    "utils.metrics.ap_per_class": (
        "tp, conf, pred_cls, target_cls, plot=False, save_dir='.', names=(), eps=1e-16, prefix=''"
    ),
    "utils.metrics.ConfusionMatrix": "nc, conf=0.25, iou_thres=0.45",
    "utils.metrics.compute_ap": "recall, precision",
    "utils.loss.ComputeLoss": "model, autobalance=False",
    "utils.torch_utils.EarlyStopping": "patience=30",
    "utils.plots.Annotator": "im, line_width=None, font_size=None, font='Arial.ttf', pil=False, example='abc'",
    "utils.plots.plot_images": "images, targets, paths=None, fname='images.jpg', names=None",
    "utils.plots.output_to_target": "output, max_det=300",
    "utils.plots.plot_results": "file='path/to/results.csv', dir=''",
    "models.common.DWConv": "c1, c2, k=1, s=1, d=1, act=True",
    "models.common.DWConvTranspose2d": "c1, c2, k=1, s=1, p1=0, p2=0",
    "models.common.Bottleneck": "c1, c2, shortcut=True, g=1, e=0.5",
    "models.common.BottleneckCSP": "c1, c2, n=1, shortcut=True, g=1, e=0.5",
    "models.common.CrossConv": "c1, c2, k=3, s=1, g=1, e=1.0, shortcut=False",
    "models.common.C3SPP": "c1, c2, k=(5, 9, 13), n=1, shortcut=True, g=1, e=0.5",
    "models.common.SPP": "c1, c2, k=(5, 9, 13)",
    "models.common.SPPF": "c1, c2, k=5",
    "models.common.Focus": "c1, c2, k=1, s=1, p=None, g=1, act=True",
    "models.common.GhostConv": "c1, c2, k=1, s=1, g=1, act=True",
    "models.common.GhostBottleneck": "c1, c2, k=3, s=1",
    "models.common.TransformerLayer": "c, num_heads",
    "models.common.TransformerBlock": "c1, c2, num_heads, num_layers",
    "models.common.Concat": "dimension=1",
    "models.common.Contract": "gain=2",
    "models.common.Expand": "gain=2",
    "models.experimental.MixConv2d": "c1, c2, k=(1, 3), s=1, equal_ch=True",
    "models.common.autopad": "k, p=None, d=1",
    "models.yolo.DetectionModel": "cfg='yolov5s.yaml', ch=3, nc=None, anchors=None",
    "models.yolo.parse_model": "d, ch=(3,)",
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module].split()])
def test_name_is_there(module, name):
    assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("path", sorted(SIGNATURES))
def test_signature_is_that_of_the_page(path):
    parameters = inspect.signature(pkgutil.resolve_name(path)).parameters.values()
    shown = [
        parameter.name if parameter.default is inspect.Parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in parameters
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY and parameter.name != "rng"  # ours, always last
    ]
    assert ", ".join(shown) == SIGNATURES[path]


@pytest.mark.parametrize("module", [name for name in NAMES if name.startswith(("utils.general", "utils.torch_utils"))])
def test_all_lists_every_name(module):
    assert set(NAMES[module].split()) <= set(importlib.import_module(module).__all__)
