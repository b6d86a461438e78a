"""Optimum's ONNX graph of a decoder, read strictly, and lowered to the operators of onnxruntime-genai's builder."""
