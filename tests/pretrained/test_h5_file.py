"""HDF5 files from strangers: nothing is followed, made or run, and memory is bounded."""

import resource

import h5py
import numpy as np
import pytest
from forked import Forked

import keras_convnext
from keras_convnext import CheckpointError, identify, load_checkpoint
from keras_convnext.pretrained import h5_file
from keras_convnext.pretrained.h5_file import read_h5

DENSE = "layers/block/pwconv1/vars/0"


def toy(**options):
    return keras_convnext.ConvNeXt((1, 1), (8, 16), classes=5, input_shape=(32, 32, 3), **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, and the bytes of its file."""
    model = toy()
    for seed, weight in enumerate(model.weights):
        weight.assign(np.random.default_rng(seed).normal(size=weight.shape))
    path = tmp_path_factory.mktemp("saved") / "x.weights.h5"
    model.save_weights(path)
    return model, path.read_bytes()


@pytest.fixture
def path(saved, tmp_path):
    path = tmp_path / "x.weights.h5"
    path.write_bytes(saved[1])
    return path


def replace(path, **options):
    """Puts another dataset in the place of one of the file's."""
    with h5py.File(path, "a") as file:
        array = file[DENSE][()]
        del file[DENSE]
        data = {} if "shape" in options or "virtual" in options else {"data": array}
        if "virtual" in options:
            file.create_virtual_dataset(DENSE, options["virtual"])
        else:
            file.create_dataset(DENSE, **{**data, **options})


def soft_link(path):
    with h5py.File(path, "a") as file:
        file["layers/more"] = h5py.SoftLink("/layers/dense")


def external_link(path):
    with h5py.File(path, "a") as file:
        file["layers/more"] = h5py.ExternalLink("/etc/hostname", "/")


def cycle(path):
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/up"] = file["layers"]


def named_type(path):
    with h5py.File(path, "a") as file:
        file["layers/type"] = np.dtype("float32")


def external_storage(path):
    other = path.with_name("other.bin")
    other.write_bytes(bytes(1024))
    replace(path, shape=(8, 32), dtype="f4", external=[(str(other), 0, 1024)])


def virtual(path):
    layout = h5py.VirtualLayout((8, 32), "f4")
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "x", (8, 32))
    replace(path, virtual=layout)


def objects(path):
    replace(path, data=["text"] * 8, dtype=h5py.string_dtype())


def compound(path):
    replace(path, data=np.zeros((8, 32), [("a", "f4"), ("b", "f4")]))


def odd_floats(path):
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    kind.set_ebias(1023)
    replace(path, shape=(8, 32), dtype=h5py.Datatype(kind).dtype)
    with h5py.File(path, "a") as file:
        del file[DENSE]
        space = h5py.h5s.create_simple((8, 32))
        h5py.h5d.create(file.id, DENSE.encode(), kind, space).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((8, 32), "f4")
        )


MALICE = {
    soft_link: "is a link",
    external_link: "is a link",
    cycle: "neither a group nor a dataset",
    named_type: "neither a group nor a dataset",
    external_storage: "data in another file",
    virtual: "data in another file",
    objects: "not numeric.*dtype object",
    compound: "not numeric",
    odd_floats: "not numeric",
    lambda path: replace(path, data=np.zeros((8, 32), ">f4")): "not numeric.*dtype >f4",
    lambda path: replace(path, data=np.zeros((8, 32), "complex64")): "not numeric.*dtype complex64",
    lambda path: replace(path, data=h5py.Empty("f4")): "not numeric",
    lambda path: replace(path, compression="lzf"): "h5repack",
    lambda path: replace(path, scaleoffset=3): "h5repack",
    lambda path: replace(path, shape=(1 << 20, 1 << 20), dtype="f4"): "more bytes than the file",
    lambda path: replace(path, shape=(1 << 20, 1 << 10), dtype="f4", chunks=(1 << 10, 1 << 10)): (
        "more bytes than the file"
    ),
    lambda path: replace(path, data=np.zeros((1 << 12, 1 << 10), "f4"), compression="gzip"): (
        "far more bytes than the file"
    ),
    lambda path: replace(path, shape=(8, 32), dtype="f4", chunks=(8, 32), maxshape=(None, None)): (
        "more bytes than the file"
    ),
}


@pytest.mark.parametrize(("spoil", "told"), MALICE.items(), ids=map(str, range(len(MALICE))))
def test_what_keras_does_not_save_is_refused(spoil, told, path):
    spoil(path)
    with pytest.raises(CheckpointError, match=rf"{told}.*x\.weights\.h5"):
        read_h5(path)


@pytest.mark.parametrize(
    "packing",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (3, 5)},
        {"chunks": (8, 7)},
        {"chunks": (16, 64), "maxshape": (None, None), "compression": 9},
    ],
    ids=str,
)
def test_what_others_pack_with_the_usual_filters_is_read(packing, saved, path):
    replace(path, **packing)
    model = toy()
    load_checkpoint(model, path)
    for ours, theirs in zip(model.get_weights(), saved[0].get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_a_chunk_that_inflates_past_its_size_is_cut(path):
    """What a filter makes is bounded by the chunk; HDF5 itself would go on to the end."""
    import zlib

    replace(path, compression="gzip", chunks=(8, 32))
    with h5py.File(path, "a") as file:
        file[DENSE].id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 28), 9))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_h5(path)[DENSE].read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # in KB
    with h5py.File(path, "a") as file:
        file[DENSE].id.write_direct_chunk((0, 0), b"no deflate")
    with pytest.raises(CheckpointError, match=r"damaged at layers/block/pwconv1/vars/0"):
        read_h5(path)[DENSE].read()


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"\x89HDF\r\n\x1a\n"],
    ids=["empty", "page", "cut"],
)
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".hdf5"])
def test_a_file_that_is_no_hdf5_is_named(content, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"Download (it|the file) again.*x{suffix}"):
        identify(path)


def test_a_cut_file_is_told(saved, path):
    path.write_bytes(saved[1][:-100])
    with pytest.raises(CheckpointError, match="Not a valid HDF5 file"):
        load_checkpoint(toy(), path)


def test_a_missing_file_is_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        identify(tmp_path / "x.weights.h5")


def test_another_hdf5_file_is_told_by_what_is_in_it(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(CheckpointError, match=r"Not a ConvNeXt.*data.*x\.h5"):
        identify(tmp_path / "x.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(CheckpointError, match=r"empty\.h5"):
        identify(tmp_path / "empty.h5")


def test_damage_anywhere_is_an_error_of_ours_or_none(saved, tmp_path):
    """In a process of its own, since what is tested last is the library in C."""
    path = tmp_path / "x.h5"
    path.write_bytes(saved[1])
    script = """
import random, sys
from pathlib import Path
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained import h5_file
from keras_convnext.pretrained.h5_file import read_h5

path = Path(sys.argv[1])
whole = path.read_bytes()
damage = random.Random(0)
for _ in range(60):
    data = bytearray(whole)
    for _ in range(damage.choice((1, 2, 20))):
        data[damage.randrange(len(data))] = damage.randrange(256)
    path.write_bytes(data)
    try:
        for tensor in read_h5(path).values():
            assert tensor.read().shape == tensor.shape
    except CheckpointError:
        pass
"""
    done = Forked(script, path).wait(120)
    assert done.returncode == 0, done.stderr


def test_a_number_of_datasets_and_an_address_have_limits(path, monkeypatch):
    monkeypatch.setattr(h5_file, "MAX_TENSORS", 50)
    with pytest.raises(CheckpointError, match=r"limit of 50 groups and datasets.*weights\.h5\)"):
        read_h5(path)
    monkeypatch.undo()
    with h5py.File(path, "a") as file:
        file.create_group("/".join(["x" * 100] * 11))
    with pytest.raises(CheckpointError, match=r"1,000 characters in an address.*weights\.h5\)"):
        read_h5(path)
