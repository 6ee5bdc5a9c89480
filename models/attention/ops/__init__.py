"""The attention op behind the layers: one signature, several backends.

``dispatch`` has the public function and chooses, ``reference`` is the oracle, ``sdpa`` the fast path on any device;
``regions`` cuts maps into regions and puts them together again, ``routing`` decides which region looks at which.
"""
