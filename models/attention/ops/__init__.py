"""The attention op behind the layers: one signature, several backends.

``dispatch`` has the public functions and chooses, ``reference`` is the oracle, ``sdpa`` the fast path on any device
(``sdpa_cpu`` its part for CPUs), ``triton_backend`` the fastest on CUDA, with the kernels of ``triton_kernels``.
``regions`` cuts maps into regions and puts them together again, ``routing`` decides which region looks at which, and
``settings`` is what a backend is told besides.
"""
