import builtins
import errno
import hashlib
import io
import os
import shutil
import time
import warnings

import numpy as np
import pytest
import torch_reference
from file_server import serving
from forked import Forked

import keras_convnext
from keras_convnext import CheckpointError, DownloadError, download_weights
from keras_convnext.normalization import CLIP
from keras_convnext.pretrained import cache, catalog, download
from keras_convnext.pretrained import published as published_module
from keras_convnext.pretrained.catalog_row import Checkpoint

ROW = Checkpoint("convnext_atto", "toy", "official", "toy.pth", 10, 224)
PORT = "toy.weights.h5"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    network = torch_reference.randomize(torch_reference.network("convnext_atto", classes=10))
    path = torch_reference.save(network, tmp_path_factory.mktemp("published") / "toy.pth")
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(published, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(catalog, "CATALOG", (ROW, *catalog.CATALOG))
    with serving() as server:
        server.files["toy.pth"] = published
        monkeypatch.setenv("KERAS_CONVNEXT_MIRROR", f"{server.url}/")
        yield server


def atto(**options):
    return keras_convnext.ConvNeXtAtto(weights="toy", **options)


def files_in(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.name for path in files if path.suffix != ".lock")


def assert_same_weights(ours, theirs):
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_clips_embedding_is_no_class_and_its_pixels_are_its_own(server, folder, monkeypatch):
    row = ROW._replace(pixels=CLIP, is_embedding=True)
    monkeypatch.setattr(catalog, "CATALOG", (row,))
    with pytest.raises(ValueError, match="return CLIP's image embedding, not classes"):
        atto()
    model = atto(classifier_activation=None)
    layer = model.get_layer("normalization")
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    expected = (images / 255 - CLIP.mean) / CLIP.std
    np.testing.assert_allclose(layer(images), expected, rtol=1e-5, atol=1e-5)


def test_the_first_start_fetches_and_ports_and_the_second_does_neither(
    server, folder, published, tmp_path, monkeypatch
):
    model = atto()
    (tmp_path / "published.pth").write_bytes(published)
    direct = keras_convnext.ConvNeXtAtto(weights=tmp_path / "published.pth")
    assert model.output_shape == (None, 10)
    assert_same_weights(model, direct)
    assert files_in(folder) == ["toy.pth", "toy.pth.sha256", PORT]
    digest = hashlib.sha256(published).hexdigest()
    told = f"# {len(published)} bytes\n{digest}  toy.pth\n"
    assert (folder / "toy.pth.sha256").read_text() == told

    server.requests.clear()
    (folder / "toy.pth").unlink()
    monkeypatch.setattr(cache, "rewrite_checkpoint", None)
    assert_same_weights(atto(), model)
    assert server.requests == []
    trunk = atto(include_top=False, pooling="avg")
    assert_same_weights(trunk, keras_convnext.ConvNeXtAtto(
        weights=tmp_path / "published.pth", include_top=False, pooling="avg"
    ))  # fmt: skip
    with pytest.warns(UserWarning, match="10 classes, but the model has 3"):
        assert atto(classes=3).output_shape == (None, 3)


def test_offline_with_an_empty_cache_says_which_file_goes_where(server, folder, published):
    del server.files["toy.pth"]
    with pytest.raises(DownloadError) as told:
        atto()
    assert ROW.url in str(told.value)
    assert f"as {folder / 'toy.pth'}" in str(told.value)
    assert files_in(folder) == []
    (folder / "toy.pth").write_bytes(published)  # as told
    assert atto().output_shape == (None, 10)
    assert [path for path, _ in server.requests] == ["/toy.pth"]


def test_a_copy_is_taken_where_the_first_source_fails(server, folder, published, monkeypatch):
    copy = ROW._replace(source="timm", file=f"copy-{hashlib.sha256(published).hexdigest()[:8]}.pth")
    monkeypatch.setattr(catalog, "CATALOG", (ROW, copy))
    server.files = {copy.file: published}
    atto()
    assert f"{copy.stem}.weights.h5" in files_in(folder)
    atto()
    assert len(server.requests) == 2


def test_the_digest_in_a_name_is_enforced(server, folder, published, monkeypatch):
    row = ROW._replace(file="toy-01234567.pth")
    monkeypatch.setattr(catalog, "CATALOG", (row,))
    server.files = {row.file: published}
    digest = hashlib.sha256(published).hexdigest()
    with pytest.raises(DownloadError, match=rf"sha256 is {digest} .* its publisher .* 01234567"):
        atto()
    assert files_in(folder) == []


def test_the_digest_of_the_first_use_is_enforced_after(server, folder, published, tmp_path):
    atto()
    (folder / PORT).unlink()
    other = torch_reference.network("convnext_atto", classes=10)
    torch_reference.save(other, folder / "toy.pth")
    with pytest.raises(CheckpointError, match=r"toy\.pth\.sha256 says.*cache remove toy\.pth"):
        atto()
    with open(folder / "toy.pth", "ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match=r"it has [\d,]+ bytes and not, as .*sha256 says, "):
        atto()
    torch_reference.save(other, folder / "toy.pth")
    server.files["toy.pth"] = (folder / "toy.pth").read_bytes()
    (folder / "toy.pth").unlink()
    with pytest.raises(DownloadError, match=r"toy\.pth\.sha256 says"):
        atto()
    assert files_in(folder) == ["toy.pth.sha256"]
    server.files["toy.pth"] = published
    atto()
    assert files_in(folder) == ["toy.pth", "toy.pth.sha256", PORT]


def of_another_network(published):
    return published.replace(b"pwconv1", b"pwconvX")


WRONG = {
    "an empty file": (lambda content: b"", "toy.pth"),
    "a page that says it is a file": (lambda content: b"<html></html>" * 99, "toy.pth"),
    "half of it": (lambda content: content[: len(content) // 2], "toy.pth"),
    "a bit changed": (
        lambda content: content[:-5_000_000] + b"\x01" + content[-4_999_999:],
        r"damaged.*toy\.pth",
    ),
    "other names": (of_another_network, "unknown tensors|damaged"),
}


@pytest.mark.parametrize(("change", "told"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_does_not_enter_the_cache(server, folder, published, change, told):
    server.files["toy.pth"] = change(published)
    with pytest.raises(DownloadError, match=told):
        atto()
    assert files_in(folder) == []
    server.files["toy.pth"] = published
    atto()
    assert files_in(folder) == ["toy.pth", "toy.pth.sha256", PORT]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW._replace(classes=1000), "1000 classes. Received: convnext_atto with 10"),
        (ROW._replace(model="convnext_femto"), "Expected convnext_femto"),
    ],
    ids=["classes", "network"],
)
def test_a_file_of_something_else_does_not_enter_the_cache(server, folder, row, told):
    with pytest.raises(DownloadError, match=told):
        cache.ported_weights([row])
    assert files_in(folder) == []


def test_a_port_that_cannot_be_kept_is_made_each_time(server, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "rewrite_checkpoint", full)
    with pytest.warns(
        UserWarning, match=r"cannot be kept.*: No space left on device\. Set KERAS_CONVNEXT_CACHE"
    ):
        model = atto()
    monkeypatch.undo()
    assert files_in(folder) == ["toy.pth", "toy.pth.sha256"]
    assert_same_weights(model, keras_convnext.ConvNeXtAtto(weights=folder / "toy.pth"))


FULL = """
import resource, signal, sys, warnings
from keras_convnext.pretrained import cache, catalog
warnings.simplefilter("always")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
row = catalog.Checkpoint("convnext_atto", "toy", "official", "toy.pth", 10, 224)
print(cache.ported_weights([row]).name)
"""


def test_a_disk_that_fills_up_while_porting_leaves_the_published_file(server, folder, published):
    """The limit on the size of files is enforced by the system as a full disk is."""
    folder.mkdir()
    (folder / "toy.pth").write_bytes(published)
    for _ in range(2):
        done = Forked(FULL).wait()
        assert done.stdout == "toy.pth\n", done.stderr
        assert "cannot be kept, so it is repeated each time: File too large" in done.stderr
        assert "Traceback" not in done.stderr
        assert "KERAS_CONVNEXT_CACHE" in done.stderr
        assert files_in(folder) == ["toy.pth", "toy.pth.sha256"]


def denied(monkeypatch, module, name, suffix):
    """Lets a function of the system fail for paths with a suffix, as for another user's files."""
    original = getattr(module, name)

    def function(path, *arguments, **options):
        if str(path).endswith(suffix):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(module, name, function)


def test_a_lock_of_another_user_is_no_obstacle(server, folder, published, monkeypatch):
    folder.mkdir()
    (folder / "toy.pth").write_bytes(published)
    with monkeypatch.context() as patch:
        denied(patch, os, "open", ".lock")
        assert cache.ported_weights([ROW]) == folder / PORT


def test_a_cache_that_cannot_be_read_is_said(server, folder, published, monkeypatch):
    folder.mkdir()
    (folder / "toy.pth").write_bytes(published)
    said = r"The cache .*cache cannot be used: Permission denied: .* Set KERAS_CONVNEXT_CACHE to"
    for function in ("stat", "open"):
        with monkeypatch.context() as patch:
            denied(patch, os if function == "stat" else io, function, "toy.pth")
            denied(patch, builtins, "open", "toy.pth" if function == "open" else "?")
            with pytest.raises(DownloadError, match=said):
                cache.ported_weights([ROW])
    assert server.requests == []


def test_a_port_that_cannot_be_read_is_made_again(server, folder, published, monkeypatch):
    folder.mkdir()
    (folder / "toy.pth").write_bytes(published)
    (folder / PORT).write_bytes(b"of another user")
    with monkeypatch.context() as patch:
        access = os.access
        patch.setattr(os, "access", lambda path, mode: path != folder / PORT and access(path, mode))
        denied(patch, os, "replace", ".partial")
        with pytest.warns(UserWarning, match="cannot be kept.*Permission denied.*KERAS_CONVNEXT_C"):
            assert cache.ported_weights([ROW]) == folder / "toy.pth"


def test_a_file_that_cannot_be_moved_into_the_cache_is_said(server, folder, monkeypatch):
    denied(monkeypatch, os, "replace", "toy.pth")
    with pytest.raises(DownloadError, match=r"cannot be written in .*denied\. Set KERAS_CONV"):
        cache.ported_weights([ROW])


def test_a_file_without_a_digest_is_warned_of_once(server, folder, published, monkeypatch):
    digest = hashlib.sha256(published).hexdigest()
    row = ROW._replace(file="convnext_tiny_1k_224_ema.pth")  # has published logits
    server.files[row.file] = published
    with pytest.warns(UserWarning, match="no digest") as told:
        cache.ported_weights([row])
    (said,) = (str(each.message) for each in told)
    assert f"Its SHA-256 is {digest}, and later copies must have the same" in said
    assert "keras-convnext download convnext_atto toy --sha256 DIGEST" in said
    assert "keras-convnext verify toy --model convnext_atto --image 000000039769.jpg" in said
    assert said.endswith(f"(file: {folder / row.file})")
    (folder / f"{row.stem}.weights.h5").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.ported_weights([row])
        known = ROW._replace(digest=f"sha256:{digest}")
        cache.ported_weights([known])
    assert "verify" not in published_module._unverified(ROW, digest)


def test_a_digest_can_be_required(server, folder, published, monkeypatch):
    digest, other = hashlib.sha256(published).hexdigest(), "0" * 64
    copy = ROW._replace(source="timm", file="copy.pth")
    monkeypatch.setattr(catalog, "CATALOG", (ROW, copy))
    server.files = {"toy.pth": published[:-1] + b"x", "copy.pth": published}
    for wrong in ("", digest[:8], f"sha256:{digest}", digest + "\n"):
        with pytest.raises(ValueError, match="must have 64 hexadecimal digits"):
            download_weights("convnext_atto", "toy", wrong)
    with pytest.raises(DownloadError, match=f"as its publisher or sha256= says, {other}"):
        download_weights("convnext_atto", "toy", other)
    assert files_in(folder) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        port = download_weights("convnext_atto", "toy", digest.upper())
    assert port.name == "copy.weights.h5"
    requests = len(server.requests)
    assert download_weights("convnext_atto", "toy", digest) == port
    with pytest.raises(CheckpointError, match=r"cache remove copy\.weights\.h5 copy\.pth"):
        download_weights("convnext_atto", "toy", other)
    (folder / "copy.pth.sha256").write_bytes(b"\xff")  # damaged: nothing is known
    with pytest.raises(CheckpointError, match="were not converted from the file with this SHA-256"):
        download_weights("convnext_atto", "toy", digest)
    port.unlink()
    assert download_weights("convnext_atto", "toy", digest) == port
    assert len(server.requests) == requests


def test_a_digest_of_weights_in_the_package_can_be_required():
    shipped = download_weights("convnext_cifar")
    digest = hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert download_weights("convnext_cifar", sha256=digest) == shipped
    with pytest.raises(CheckpointError, match="not the file that was published"):
        download_weights("convnext_cifar", sha256="0" * 64)


def test_a_cache_that_cannot_be_written_is_used(server, folder, published, monkeypatch):
    folder.mkdir()
    (folder / "toy.pth").write_bytes(published)
    monkeypatch.setattr(os, "access", lambda *_: False)

    def full(*_):
        raise OSError("read-only")

    monkeypatch.setattr(cache, "rewrite_checkpoint", full)
    with pytest.warns(UserWarning, match="read-only"):
        assert cache.ported_weights([ROW]) == folder / "toy.pth"


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_CONVNEXT_CACHE", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".keras" / "models" / "keras_convnext"
    monkeypatch.setenv("KERAS_HOME", "/k")
    assert str(cache.cache_folder()) == "/k/models/keras_convnext"
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", "/c")
    assert str(cache.cache_folder()) == "/c"
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", "~/c")  # as a file of variables has it
    assert cache.cache_folder() == tmp_path / "c"


PROCESS = """
from keras_convnext.pretrained import cache, catalog
row = catalog.Checkpoint("convnext_atto", "toy", "official", "toy.pth", 10, 224)
print(cache.ported_weights([row]).stat().st_size)
"""


def test_of_two_processes_one_fetches(server, folder):
    server.pause = 0.002
    processes = [Forked(PROCESS), Forked(PROCESS)]
    done = [process.wait() for process in processes]
    assert [process.returncode for process in done] == [0, 0]
    assert {process.stdout for process in done} == {f"{(folder / PORT).stat().st_size}\n"}
    assert len(server.requests) == 1
    assert files_in(folder) == ["toy.pth", "toy.pth.sha256", PORT]


def test_killed_at_any_moment_the_cache_holds_whole_files_and_the_next_start_goes_on(
    server, folder, published
):
    cache.ported_weights([ROW])
    whole = {name: (folder / name).read_bytes() for name in files_in(folder)}
    shutil.rmtree(folder)
    server.requests.clear()
    server.pause = 0.004

    partial, arrived = folder / "partial" / "toy.pth", folder / "toy.pth"
    moments = {
        "asked for": lambda: server.requests,
        "half there": lambda: partial.is_file() and partial.stat().st_size > len(published) / 2,
        "there": arrived.is_file,
        "ported": lambda: False,
    }
    killed_at = []
    for moment, has_come in moments.items():
        process = Forked(PROCESS)
        while process.is_running():
            if has_come():
                process.kill()
                killed_at.append(moment)
                break
            time.sleep(0.001)
        process.wait()
        for name, content in whole.items():
            if (folder / name).is_file() and name != "toy.pth.sha256":
                assert (folder / name).read_bytes() == content, moment
    assert killed_at == ["asked for", "half there", "there"]
    assert {name: (folder / name).read_bytes() for name in files_in(folder)} == whole
    parts = [asked for _, asked in server.requests]
    assert parts[0] is None
    assert int(parts[-1].removeprefix("bytes=").removesuffix("-")) > len(published) / 2
