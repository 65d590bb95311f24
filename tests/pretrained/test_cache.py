import hashlib
import os
import shutil
import time

import numpy as np
import pytest
import torch_reference
from file_server import serving
from forked import Forked

import keras_convnext
from keras_convnext import CheckpointError, DownloadError
from keras_convnext.pretrained import cache, catalog, download
from keras_convnext.pretrained.catalog import Checkpoint

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
    assert (folder / "toy.pth.sha256").read_text() == f"{digest}  toy.pth\n"

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
        raise OSError("no space left")

    monkeypatch.setattr(cache, "rewrite_checkpoint", full)
    with pytest.warns(UserWarning, match="no space left"):
        model = atto()
    monkeypatch.undo()
    assert files_in(folder) == ["toy.pth", "toy.pth.sha256"]
    assert_same_weights(model, keras_convnext.ConvNeXtAtto(weights=folder / "toy.pth"))


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
