"""An exported student in use: no torch, timm or DVC, only ONNX Runtime and Pillow."""
