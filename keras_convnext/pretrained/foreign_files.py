"""Files often mistaken for weights, recognized by their first bytes or their suffix."""

from pathlib import Path

_FETCH = "Download the file again from its publisher"
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
_TAR = slice(257, 262), b"ustar"
_LITERT = slice(4, 8), b"TFL3"

# What a file is, by its suffix. The message continues with what to pass instead.
_ENDINGS = {
    ".onnx": "An ONNX model",
    ".pb": "A TensorFlow graph",
    ".tflite": "A LiteRT model",
    ".mlmodel": "A Core ML model",
    ".engine": "A TensorRT engine",
    ".gguf": "A GGUF file",
    ".pt2": "A torch.export program",
    ".msgpack": "A Flax checkpoint",
    ".pdparams": "A PaddlePaddle checkpoint",
    ".npy": "A NumPy array",
    ".npz": "A NumPy archive",
    ".index": "A TensorFlow checkpoint",
}
_ON_A_SERVER = ("http", "https", "hf", "hf-hub", "s3", "gs")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"%PDF")


def foreign_file(path: Path) -> str | None:
    """Returns a message about the kind of a file and what to do, or None if it may be weights.

    Raises:
        FileNotFoundError: If the file does not exist.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    text = start.lstrip()
    if not start:
        return f"The file is empty. {_FETCH}"
    if path.suffix == ".xml":
        return _instead_of("An OpenVINO model")
    if text.startswith(b"<"):
        return "This is a web page, not a checkpoint: the download failed. Download it again"
    if text.startswith(b"version https://git-lfs"):
        return "This is a Git LFS pointer, not the file itself: run `git lfs pull`"
    if start.startswith(_PACKED) or start[_TAR[0]] == _TAR[1]:
        return "This is a compressed archive. Extract it, and pass the weight file in it"
    if start.startswith(_PICTURES):
        return "This is an image or a document. Pass a weight file or a folder with one"
    if start[_LITERT[0]] == _LITERT[1]:
        return _instead_of(_ENDINGS[".tflite"])
    if path.suffix in _ENDINGS:
        return _instead_of(_ENDINGS[path.suffix])
    if ".data-" in path.suffix:
        return _instead_of(_ENDINGS[".index"])
    return None


def missing_file(address: str) -> str | None:
    """Returns a message for the path of a missing file, or None if it needs no explanation."""
    if address.partition(":")[0] in _ON_A_SERVER:
        return "Weights are only read from files. Download the file first, and pass its path"
    if address.startswith("~"):
        return "There is no such file: only a shell expands ~ to your home folder"
    if Path(f"{address}.index").is_file():
        return _instead_of(_ENDINGS[".index"])
    return None


def _instead_of(kind: str) -> str:
    return (
        f"{kind}, which is not supported. Pass the weights as a .pth, .safetensors, .keras or "
        ".weights.h5 file"
    )
