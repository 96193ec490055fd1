"""Your own networks: a change to this package retrains those that are in use.

In params.yaml: `networks: {mine: {arch: "networks.example:small_convnet"}}`.
"""
