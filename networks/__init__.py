"""Your own networks: a change here retrains those that use it.

In params.yaml: `networks: {mine: {arch: "networks.example:small_convnet"}}`.
"""
