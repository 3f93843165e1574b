"""Open an ONNX model so that it runs in the caller's thread alone."""

from typing import Any

from manifests.extras import need


def open_session(path: str) -> Any:
    """Return an onnxruntime session on the CPU with one thread: workers are processes, and a sum split among threads
    changes its bits."""
    onnxruntime = need("onnxruntime", "score")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
