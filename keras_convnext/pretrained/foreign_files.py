"""Files that are often given for weights and are none, told by how they start or are called."""

from pathlib import Path

_FETCH = "Fetch the file again, from its publisher"
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
_TAR = slice(257, 262), b"ustar"
_LITERT = slice(4, 8), b"TFL3"

# A name ends in: what the file is. The message goes on with what to give instead.
_ENDINGS = {
    ".onnx": "An ONNX model",
    ".pb": "A TensorFlow graph",
    ".tflite": "A LiteRT model",
    ".mlmodel": "A Core ML model",
    ".engine": "A TensorRT engine",
    ".gguf": "A GGUF file",
    ".pt2": "A program of torch.export",
    ".msgpack": "A Flax checkpoint",
    ".pdparams": "A PaddlePaddle checkpoint",
    ".npy": "A NumPy array",
    ".npz": "An archive of NumPy arrays",
    ".index": "A TensorFlow checkpoint",
}
_ON_A_SERVER = ("http", "https", "hf", "hf-hub", "s3", "gs")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"%PDF")


def foreign_file(path: Path) -> str | None:
    """Returns what a file is, and what to do, if it holds no weights that can be read here.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    text = start.lstrip()
    if not start:
        return f"The file is empty. {_FETCH}"
    if path.suffix == ".xml":
        return _instead_of("An OpenVINO model")
    if text.startswith(b"<"):
        return "This is a web page, not a checkpoint: the download went wrong. Fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "This is a pointer of Git LFS, not what it points to: run `git lfs pull`"
    if start.startswith(_PACKED) or start[_TAR[0]] == _TAR[1]:
        return "A packed archive. Unpack it, and give the file of weights in it"
    if start.startswith(_PICTURES):
        return "A picture or a document. Give a file or folder of weights"
    if start[_LITERT[0]] == _LITERT[1]:
        return _instead_of(_ENDINGS[".tflite"])
    if path.suffix in _ENDINGS:
        return _instead_of(_ENDINGS[path.suffix])
    if ".data-" in path.suffix:
        return _instead_of(_ENDINGS[".index"])
    return None


def missing_file(address: str) -> str | None:
    """Returns what an address means, and what to do, if it is of no file."""
    if address.partition(":")[0] in _ON_A_SERVER:
        return "Weights are read from files: download this first, and give its path"
    if address.startswith("~"):
        return "There is no such file: ~ stands for your home in a shell alone"
    if Path(f"{address}.index").is_file():
        return _instead_of(_ENDINGS[".index"])
    return None


def _instead_of(kind: str) -> str:
    return (
        f"{kind}, which is not read here. Give the weights in a .pth, .safetensors, .keras or "
        ".weights.h5 file"
    )
