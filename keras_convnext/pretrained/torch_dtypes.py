"""The names of dtypes in PyTorch files, and their NumPy dtypes."""

import ml_dtypes
import numpy as np

# Typed storages. Those of quantized tensors have no NumPy dtype.
STORAGE_DTYPES = {
    "torch.DoubleStorage": np.dtype("float64"),
    "torch.FloatStorage": np.dtype("float32"),
    "torch.HalfStorage": np.dtype("float16"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.ComplexDoubleStorage": np.dtype("complex128"),
    "torch.ComplexFloatStorage": np.dtype("complex64"),
    "torch.LongStorage": np.dtype("int64"),
    "torch.IntStorage": np.dtype("int32"),
    "torch.ShortStorage": np.dtype("int16"),
    "torch.CharStorage": np.dtype("int8"),
    "torch.ByteStorage": np.dtype("uint8"),
    "torch.BoolStorage": np.dtype("bool"),
}

# A storage of bytes, whose tensors state their dtype.
UNTYPED_STORAGE = "torch.storage.UntypedStorage"
TENSOR_DTYPES = {
    "torch.uint16": np.dtype("uint16"),
    "torch.uint32": np.dtype("uint32"),
    "torch.uint64": np.dtype("uint64"),
    "torch.float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "torch.float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "torch.float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "torch.float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
