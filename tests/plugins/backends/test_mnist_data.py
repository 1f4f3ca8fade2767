"""MNIST's files: found in a folder, downloaded once, checked, and bounded."""

import functools
import gzip
import hashlib
import http.server
import threading
import tracemalloc

import pytest
import torch

from composer_plugins.backends.mnist import DataError, load_mnist
from composer_plugins.backends.mnist import data as mnist_data


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """The four idx files with 5 images each, and their checksums in place of MNIST's."""
    folder = tmp_path / "idx"
    folder.mkdir()
    sums = {}
    for name in mnist_data.CHECKSUMS:
        if "images" in name:
            body = bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(5 * 784)
        else:
            body = bytes([0, 0, 8, 1, 0, 0, 0, 5, 3, 1, 4, 1, 5])
        sums[name] = hashlib.md5(body).hexdigest()
        (folder / f"{name}.gz").write_bytes(gzip.compress(body))
    monkeypatch.setattr(mnist_data, "CHECKSUMS", sums)
    monkeypatch.delenv("COMPOSER_MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def mirror(small_mnist):
    handler = functools.partial(QuietHandler, directory=str(small_mnist))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): ...


def test_data_is_read_from_a_folder_gzipped_or_not(small_mnist):
    images, labels = load_mnist("train", small_mnist)
    assert (images.shape, images.dtype) == ((5, 28, 28), torch.uint8)
    assert labels.tolist() == [3, 1, 4, 1, 5]
    for packed in small_mnist.glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert torch.equal(load_mnist("train", small_mnist)[0], images)


def test_data_is_read_from_the_environment(small_mnist, monkeypatch):
    monkeypatch.setenv("COMPOSER_MNIST", str(small_mnist))
    assert len(load_mnist("test")[1]) == 5


def test_data_is_downloaded_once_into_the_cache(mirror, small_mnist):
    assert load_mnist("test", mirror=mirror)[1].tolist() == [3, 1, 4, 1, 5]
    for file in small_mnist.iterdir():
        file.unlink()
    assert load_mnist("test", mirror=mirror)[1].tolist() == [3, 1, 4, 1, 5]


def test_a_damaged_download_raises_and_leaves_nothing(mirror, small_mnist):
    name = "t10k-images-idx3-ubyte"
    for content in (
        gzip.compress(b"something else"),
        (small_mnist / f"{name}.gz").read_bytes()[:40],
    ):
        (small_mnist / f"{name}.gz").write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.*(must have the md5|must be an intact gzip)"):
            load_mnist("test", mirror=mirror)
        assert not list(mnist_data.cache_folder().glob("*"))


def test_an_interrupted_download_raises_and_leaves_nothing(mirror, monkeypatch):
    """The server promises more than it sends, and hangs up."""

    def promise(self, name, value):
        longer = str(int(value) + 1000) if name == "Content-Length" else value
        super(QuietHandler, self).send_header(name, longer)

    monkeypatch.setattr(QuietHandler, "send_header", promise, raising=False)
    with pytest.raises(DataError, match="could not download .*IncompleteRead.*COMPOSER_MNIST"):
        load_mnist("test", mirror=mirror)
    assert not list(mnist_data.cache_folder().glob("*"))


def test_an_unreachable_mirror_says_what_to_do(small_mnist):
    with pytest.raises(DataError, match="could not download .*COMPOSER_MNIST"):
        load_mnist("test", mirror="http://127.0.0.1:9")


def test_a_missing_or_damaged_file_is_named(small_mnist, tmp_path):
    with pytest.raises(DataError, match="holds neither train-images-idx3-ubyte.gz nor"):
        load_mnist("train", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match="must be a folder, got a file. Name the folder of the four"
    ):
        load_mnist("train", tmp_path / "file")
    with pytest.raises(ValueError, match="split must be one of .*, got 'tset'"):
        load_mnist("tset", small_mnist)
    (small_mnist / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"xyz"))
    with pytest.raises(DataError, match="train-labels-idx1-ubyte.gz must have the md5"):
        load_mnist("train", small_mnist)


def test_the_real_checksums_are_the_published_ones():
    assert mnist_data.CHECKSUMS["train-images-idx3-ubyte"] == "6bbc9ace898e44ae57da46a324031adb"
    assert len(mnist_data.CHECKSUMS) == 4


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["packed", "plain"])
def test_a_file_that_holds_too_much_is_left_off_at_the_bound(small_mnist, monkeypatch, pack):
    """Two megabytes of zeros once unpacked to as many as the machine had memory for."""
    monkeypatch.setattr(mnist_data, "MOST", 10**6)
    name = "train-images-idx3-ubyte"
    (small_mnist / f"{name}.gz").unlink()
    file = small_mnist / (f"{name}.gz" if pack is gzip.compress else name)
    file.write_bytes(pack(bytes(20 * 10**6)))
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{file.name} is larger than any file of MNIST\."):
        load_mnist("train", small_mnist)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * mnist_data.MOST  # not the 20 times that it would take


def test_the_bound_lets_all_of_mnist_through():
    """The images' files are a head of 16 bytes and a byte a pixel."""
    assert mnist_data.MOST == 47_040_016
