"""The convolutional blocks, by family: ``conv``, ``csp``, ``pooling``, ``reshape``, ``transformer``, ``activations``.

Constructor letters, after YOLOv5: c1, c2 channels in and out; k kernel; s stride; p padding; g groups; d dilation;
n repeats; e width of the hidden layer as a share of c2; act activation.
"""
