"""Every kind of fault that the doctor knows, the most harmful first; reports keep this order."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: in reports and tests.
        level: "error" harms training or makes its figures worthless, "warning" is worth a look.
        title: what it is, and what follows from it.
        advice: what to do.
    """

    name: str
    level: str
    title: str
    advice: str


_SET_ERRORS = {
    "data-yaml": ("the data set cannot be used", "correct the YAML or put the files there"),
    "split-missing": ("the images of a split are not there", "correct the entry or put the images there"),
    "annotations-unusable": ("COCO's JSON cannot be used", "mend what the line says"),
    "split-empty": ("a split has no image to train on or to measure with", "put images there"),
    "split-unlabelled": ("a split has not one label", "put the labels where they are looked for"),
    "split-overlap": (
        "a picture is in two splits: figures on it only show what was learnt by heart",
        "keep it in one of them; --fix takes it out of the training images",
    ),
    "classes-from-one": ("classes seem to count from 1; they count from 0", "subtract 1 from each class number"),
}
_IMAGE_ERRORS = {
    "image-special": ("an image is a pipe, socket or device; it is left out", "replace it by a file"),
    "image-missing": ("a listed image is not there; it is left out", "correct the list"),
    "image-unreadable": ("an image cannot be decoded; it is left out", "save it again as JPEG or PNG"),
    "image-truncated": ("an image is cut off or damaged; it is left out", "copy it again from its source"),
    "image-tiny": ("an image is too small; it is left out", "take it out, or find the larger original"),
    "image-size": ("an image is not as large as its header says", "save it again"),
}
_LABEL_ERRORS = {
    "label-special": ("a label file is a pipe, socket or device", "replace it by a text file"),
    "label-unreadable": ("a label file cannot be read: its objects train as background", "mend what the line says"),
    "label-encoding": ("a label file is no plain text: objects are lost", "save it as UTF-8; --fix does it for UTF-16"),
    "label-misplaced": ("labels beside the image, not in the labels folder, are not read", "move them; --fix does"),
    "label-misnamed": ("a label file with upper and lower case mixed up is not read", "rename it; --fix does"),
    "label-columns": (
        "a line has a wrong number of values: its object is lost and trains as background",
        "five values for a box, class x y w h, with blanks between; --fix turns commas and semicolons into blanks",
    ),
    "label-number": ("a value is no number: the object is lost", "write digits, and a point before decimals"),
    "label-range": (
        "a coordinate is outside 0..1: the object is lost and trains as background",
        "divide pixels by the image's width and height; --fix cuts what overshoots by up to 0.01",
    ),
    "label-class": ("a class is no whole number from 0: the object is lost", "write the class's number"),
    "label-unknown-class": (
        "a class is not among the names: the object is lost",
        "correct the number, or add the name to the YAML",
    ),
    "label-no-area": (
        "a box has no width or no height: nothing can find it",
        "draw it again, or take it out; --fix takes it out",
    ),
}
_WARNINGS = {
    "split-same": ("training and measuring use the same images", "figures will look better than the detector is"),
    "test-missing": ("the test images are not there", "only val.py --task test needs them"),
    "names-twice": ("two classes have one name", "give them two, or make them one class"),
    "annotation": ("an entry of COCO's JSON is left out or taken otherwise", "see the reason"),
    "class-empty": ("a class has no object to train on", "it will never be found: add labels"),
    "class-rare": ("a class has fewer than 10 objects to train on", "it will hardly be learnt: add labels"),
    "image-unlabelled": ("an image without label file counts as background", "an empty file says that it is meant"),
    "label-orphan": ("a label file has no image: it is not used", "add the image, or remove the file"),
    "label-shared": ("two images have the same label file", "give one of them another name"),
    "label-two-classes": ("a box is there with two classes", "keep the right one, unless both are meant"),
    "label-duplicate": ("a line is there twice; it counts once", "take it out; --fix does"),
    "label-beyond": ("a box reaches beyond its image", "draw it again; --fix cuts it at the border"),
    "polygon-flat": ("a polygon encloses no area", "draw it again: its box counts, its outline is of no use"),
    "image-turned": (
        "EXIF says that the picture is to be turned, and training turns it",
        "labels must be those of the turned picture: look at train_batch0.jpg in the run folder",
    ),
    "image-blank": ("all pixels of an image are equal", "is that what the camera saw?"),
    "image-copy": ("a picture is there twice and counts twice", "take one out; --fix does where labels agree"),
    "image-listed-twice": ("an image is listed twice and counts twice", "take out a line; --fix does"),
    "list-line": ("a line of a list names no image and is passed over", "correct it or take it out"),
    "objects-tiny": (
        "an object has no side of 8 px at this image size: it is hardly to be found",
        "a larger --img, or tiles (docs/tiling.md)",
    ),
}
_ERRORS = {**_SET_ERRORS, **_IMAGE_ERRORS, **_LABEL_ERRORS}

KINDS = {
    name: Kind(name, level, *texts)
    for level, kinds in ((ERROR, _ERRORS), (WARNING, _WARNINGS))
    for name, texts in kinds.items()
}
