"""What ``export.py`` does: ``exporter.py`` puts the steps together, the others know a step each.

``network.py`` the detector as a graph of one input and one output, ``torchscript_file.py``, ``onnx_file.py`` and
``openvino_file.py`` the formats, ``quantise.py`` the 8 bits, ``comparing.py`` the check of every file written.
"""
