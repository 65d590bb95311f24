"""Weights by the id of a repository, from a local server that answers like the hub."""

import hashlib
import json
import re

import numpy as np
import pytest
import safetensors.torch
import torch
import torch_reference
from file_server import serving
from test_layouts import timm_v2, transformers_v2

import keras_convnext
from keras_convnext import CheckpointError, DownloadError, identify, load_model
from keras_convnext.cli.loading import crop_of
from keras_convnext.normalization import CLIP
from keras_convnext.pretrained import download
from keras_convnext.pretrained.hub_files import local_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ID = "hf://timm/toy.v2"


class Hub:
    """A repository as the hub lists it; large files are in LFS, with their SHA-256."""

    def __init__(self, server, tmp_path):
        self.server, self.folder = server, tmp_path / "repository"
        self.folder.mkdir()
        self.listing = {"sha": COMMIT, "siblings": [], "cardData": {"license": "cc-by-nc-4.0"}}
        self.revision = "main"

    def add(self, name, content):
        row = {"rfilename": name, "size": len(content)}
        header = b"blob %d\0" % len(content)
        row["blobId"] = hashlib.sha1(header + content).hexdigest()
        if not name.endswith(".json"):
            row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        self.listing["siblings"].append(row)
        self.server.files[f"timm/toy.v2/resolve/{COMMIT}/{name}"] = content
        self.publish()
        return row

    def publish(self, listing=None):
        for revision in ("main", COMMIT, "v1"):
            name = f"api/models/timm/toy.v2/revision/{revision}"
            self.server.files[name] = json.dumps(listing or self.listing).encode()

    def add_weights(self, network, name="model.safetensors"):
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        if name.endswith(".safetensors"):
            return self.add(name, safetensors.torch.save(state))
        torch.save(state, self.folder / name)
        return self.add(name, (self.folder / name).read_bytes())


@pytest.fixture(scope="module")
def network():
    return torch_reference.randomize(timm_v2())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_CONVNEXT_ALLOW_HTTP", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("KERAS_CONVNEXT_OFFLINE", raising=False)
    return tmp_path / "cache" / "hub" / "timm--toy.v2"


@pytest.fixture
def hub(tmp_path, cache, monkeypatch):
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield Hub(server, tmp_path)


def test_a_model_of_timm_is_downloaded_once_with_its_preparation(
    hub, cache, network, capsys, tmp_path
):
    config = {"pretrained_cfg": {"mean": list(CLIP.mean), "std": list(CLIP.std),
                                 "crop_pct": 0.95, "input_size": [3, 64, 64]}}  # fmt: skip
    hub.add("config.json", json.dumps(config).encode())
    hub.add("README.md", b"# toy")
    size = hub.add_weights(network)["size"]
    model = load_model(ID, classifier_activation=None)
    lines = capsys.readouterr().err.splitlines()
    total = (size + hub.listing["siblings"][0]["size"]) / 1e6
    assert lines[0] == (
        f"Downloading timm/toy.v2 at 0123456: {total:.1f} MB, license: cc-by-nc-4.0"
    )
    assert lines[1:3] == [f"  from {hub.server.url}/timm/toy.v2", f"  to {cache / COMMIT}"]
    assert sorted(path.name for path in (cache / COMMIT).iterdir() if path.is_file()) == [
        "config.json", "model.safetensors"
    ]  # fmt: skip
    assert model.input_shape == (None, 64, 64, 3)

    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    image = torch.tensor((pixels / 255 - CLIP.mean) / CLIP.std, dtype=torch.float32)
    with torch.no_grad():
        expected = network(image.movedim(-1, 1)).numpy()
    error = np.abs(model.predict(pixels, verbose=0) - expected).max() / np.abs(expected).max()
    assert error < 1e-5
    model.save(tmp_path / "x.keras")
    saved = keras_convnext.load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(
        saved.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
    )

    asked = len(hub.server.requests)
    builder = keras_convnext.ConvNeXtV2((2, 1, 2, 1), (8, 16, 24, 32), weights=ID)
    assert builder.get_layer("normalization").scale == model.get_layer("normalization").scale
    assert identify(ID).variant.grn
    assert crop_of(ID, None) == 0.95
    assert len(hub.server.requests) == asked


def test_a_model_of_transformers_and_a_pinned_revision(hub, cache, monkeypatch):
    theirs = torch_reference.randomize(transformers_v2())
    hub.add_weights(theirs, "pytorch_model.bin")
    hub.add("preprocessor_config.json", b'{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}')
    for revision in ("v1", COMMIT):
        folder = local_source(f"{ID}@{revision}")
        assert folder == cache / COMMIT
    paths = [path for path, _ in hub.server.requests]
    assert sum(path.endswith("pytorch_model.bin") for path in paths) == 1
    model = load_model(f"{ID}@v1", input_shape=(64, 64, 3))
    assert model.get_layer("normalization").offset == [-0.5] * 3
    monkeypatch.setenv("KERAS_CONVNEXT_OFFLINE", "1")
    assert local_source(f"{ID}@v1") == cache / COMMIT
    told = "main is not in the cache, and KERAS_CONVNEXT_OFFLINE forbids connections"
    with pytest.raises(DownloadError, match=told):
        local_source(f"{ID}@main")


def test_safetensors_are_preferred_and_shards_are_complete(hub, cache, network):
    hub.add("pytorch_model.bin", b"never")
    shard = "model-00001-of-00001.safetensors"
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    hub.add(shard, safetensors.torch.save(state))
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, shard)}
    hub.add("model.safetensors.index.json", json.dumps(index).encode())
    assert identify(ID).classes == 5
    assert not (cache / COMMIT / "pytorch_model.bin").exists()


def test_an_interrupted_download_resumes(hub, network):
    hub.add_weights(network)
    hub.server.cuts, hub.server.cut_after = 2, 1000
    assert identify(ID).classes == 5
    assert any(asked == "bytes=1000-" for _, asked in hub.server.requests)


def test_a_busy_hub_is_asked_again(hub, network):
    hub.add_weights(network)
    hub.server.statuses = [503, 429]
    assert identify(ID).classes == 5


def changed(hub, content):
    (name,) = (name for name in hub.server.files if name.endswith("model.safetensors"))
    hub.server.files[name] = content


def other_bytes(hub):
    (row,) = hub.listing["siblings"]
    changed(hub, bytes(row["size"]))


def longer(hub):
    (row,) = hub.listing["siblings"]
    changed(hub, bytes(row["size"] + 1))


def listed(value):
    return lambda hub: hub.publish(value)


FAULTS = {
    "other bytes": (other_bytes, r"model.safetensors has .* and not .* as the hub lists"),
    "other size": (longer, "are expected"),
    "no repository": (lambda hub: hub.server.files.clear(), r"404.*: it has no such file"),
    "gated": (lambda hub: hub.server.statuses.extend([401]), r"401.*write one into ~/.netrc"),
    "down": (lambda hub: hub.server.statuses.extend([503] * 3), "it answers 503"),
    "no JSON": (
        lambda hub: hub.server.files.update(
            {name: b"{" for name in hub.server.files if name.startswith("api/")}
        ),
        "its list of files is no JSON",
    ),
    "a list": (listed([1]), "its list of files is no JSON"),
    "no commit": (listed({"sha": "../..", "siblings": []}), "which commit it is"),
    "no weights": (listed({"sha": COMMIT, "siblings": []}), "has no weights of timm or transfor"),
    "a name with a folder": (
        listed({"sha": COMMIT, "siblings": [
            {"rfilename": "../model.safetensors", "size": 1, "blobId": "0" * 40}]}),
        "has no weights of timm",
    ),
    "no digest": (
        listed({"sha": COMMIT, "siblings": [{"rfilename": "model.safetensors", "size": 1}]}),
        "has no weights of timm",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "told"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_said_and_nothing_wrong_is_kept(break_it, told, hub, cache, network):
    hub.add_weights(network)
    break_it(hub)
    with pytest.raises((DownloadError, CheckpointError), match=told) as error:
        local_source(ID)
    if error.type is DownloadError:
        assert "HF_ENDPOINT may name a mirror" in str(error.value)
    assert not (cache / "refs").exists()
    assert not list(cache.rglob("*.safetensors"))


def test_a_server_that_is_not_there_is_named(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"hf://timm/toy.v2 is not in the cache"):
        local_source(ID)


def test_an_endpoint_that_is_not_encrypted_has_to_be_allowed(hub, monkeypatch):
    monkeypatch.delenv("KERAS_CONVNEXT_ALLOW_HTTP")
    with pytest.raises(DownloadError, match="address from HF_ENDPOINT does not start with https"):
        local_source(ID)


@pytest.mark.parametrize(
    "source",
    ["hf://", "hf://timm", "hf://timm/", "hf://timm/a/b", "hf://../x", "hf://x/..", "hf://a/b@",
     "hf://a/b@../c", "hf://a/b@c d", "hf://a/b@x/../y", "hf://a/b?x"],
)  # fmt: skip
def test_what_is_no_id_is_refused(source, hub):
    with pytest.raises(ValueError, match=re.escape(f"Received: {source}")):
        local_source(source)
    assert hub.server.requests == []
