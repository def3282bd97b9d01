"""Features on disk are found again, checked, and removed when there is no room."""

import ctypes
import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess as Process
from pathlib import Path

import pytest
import torch

from eagle.draft.vocabulary import full_vocabulary, part_of_vocabulary
from eagle.errors import InputError
from eagle.training import feature_cache
from eagle.training.feature_cache import CachedFeatures, _Files
from eagle.training.features import compute_features
from eagle.training.on_disk import LOCK, cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EAGLE_CACHE", str(tmp_path))
    return tmp_path


def cached(tokens, verifier, vocabulary=None, name="hash") -> CachedFeatures:
    return CachedFeatures(tokens, verifier, vocabulary or full_vocabulary(verifier.head), name, 10)


def features_of(cached: CachedFeatures, document: int) -> torch.Tensor:
    return cached.of([document], [torch.tensor([], dtype=torch.int64)])[0]


def test_they_are_computed_once_and_keyed_by_what_they_depend_on(
    verifier, tokens, cache, monkeypatch
):
    first = cached(tokens, verifier)
    assert len(list(cache.iterdir())) == 2  # features, teacher

    def never(*_arguments):
        raise AssertionError("computed again")

    with monkeypatch.context() as patched:
        patched.setattr(feature_cache, "compute_features", never)
        again = cached(tokens, verifier)
        assert torch.equal(features_of(again, 0), features_of(first, 0))
        assert again.seconds == first.seconds > 0  # counted in every run that uses them
        part = part_of_vocabulary(verifier.head, torch.arange(40))
        cached(tokens, verifier, part)  # another teacher of the same features
        with pytest.raises(AssertionError, match="computed again"):
            cached(tokens, verifier, name="another verifier")
    cached(tokens, verifier.to(torch.bfloat16))
    assert len([path for path in cache.iterdir() if not path.name.startswith(".")]) == 5


@pytest.mark.parametrize("name", ["features.bin", "likeliest.bin", "manifest.json"])
@pytest.mark.parametrize("harm", ["a flipped byte", "a cut"])
def test_a_changed_file_is_computed_again_with_a_message(
    verifier, tokens, cache, capsys, name, harm
):
    right = features_of(cached(tokens, verifier), 0).clone()
    path = next(cache.glob(f"*/{name}"))
    content = bytearray(path.read_bytes())
    content[5] ^= 0xFF
    path.write_bytes(content if harm == "a flipped byte" else content[:-4])
    again = cached(tokens, verifier)
    assert f"{path}: " in (said := capsys.readouterr().err)
    assert "the features are computed again" in said
    torch.testing.assert_close(features_of(again, 0), right)


def test_the_caches_unused_for_longest_make_room(verifier, tokens, cache, monkeypatch):
    for name, age in (("oldest", 300), ("older", 200)):
        (cache / name).mkdir(parents=True)
        (cache / name / LOCK).touch()
        with (cache / name / "features.bin").open("wb") as file:
            file.truncate(10**9)
        os.utime(cache / name, (0, 1e9 - age))
    real = shutil.disk_usage

    def full_until_one_is_gone(path):
        usage = real(path)
        return usage._replace(free=usage.free if not (cache / "oldest").exists() else 10)

    monkeypatch.setattr(feature_cache.shutil, "disk_usage", full_until_one_is_gone)
    cached(tokens, verifier)
    assert not (cache / "oldest").exists()
    assert (cache / "older").exists()


def test_what_another_run_reads_is_not_removed(verifier, tokens, cache, monkeypatch):
    first = cached(tokens, verifier)
    before = features_of(first, 0).clone()
    real = shutil.disk_usage
    with monkeypatch.context() as patched:
        patched.setattr(
            feature_cache.shutil, "disk_usage", lambda path: real(path)._replace(free=10)
        )
        with pytest.raises(InputError, match=r"0\.0 GB of features that no run uses"):
            cached(tokens, verifier, name="another verifier")
    (features,) = cache.glob("*/features.bin")
    features.with_name("manifest.json").write_text('{"seconds": 1}')
    again = cached(tokens, verifier)  # the other is put aside
    assert len(list(cache.glob(".*/features.bin"))) == 1
    torch.testing.assert_close(features_of(first, 0), before)
    torch.testing.assert_close(features_of(again, 0), before)
    del first
    cached(tokens, verifier, name="another verifier")
    assert list(cache.glob(".*/features.bin")) == []


def on_a_machine(host: str, tell: Connection, together, verifier, tokens, name: str) -> None:
    """What a machine does in the next test: fill a cache, and say what it has, twice."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_user, new_uts = 0x10000000, 0x04000000  # a host's name of its own, also without root
    assert libc.unshare(new_user | new_uts) == 0, os.strerror(ctypes.get_errno())
    socket.sethostname(host)

    def compute(*arguments):
        if name == "stuck":
            tell.send(socket.gethostname())
            signal.pause()
        together.wait(60)
        return compute_features(*arguments)

    feature_cache.compute_features = compute
    mine = cached(tokens, verifier, name=name)
    for _ in range(2):
        tell.send((socket.gethostname(), features_of(mine, 0).sum().item()))
        tell.recv()


def test_machines_share_one_cache(verifier, tokens, cache):
    """Two fill the same at the same time; a third one fills another and is killed."""
    forked = multiprocessing.get_context("fork")
    together = forked.Barrier(2)

    def machine(host: str, name: str) -> tuple[Process, Connection]:
        here, there = forked.Pipe()
        process = forked.Process(
            target=on_a_machine, args=(host, there, together, verifier, tokens, name), daemon=True
        )
        process.start()
        return process, here

    (a, from_a), (b, from_b) = machine("a", "shared"), machine("b", "shared")
    c, from_c = machine("c", "stuck")
    (host_a, found), (host_b, as_found) = from_a.recv(), from_b.recv()
    assert (host_a, host_b, from_c.recv()) == ("a", "b", "c")
    assert found == as_found
    mine = cached(tokens, verifier, name="shared")
    assert not mine.verifier_runs
    assert features_of(mine, 0).sum().item() == found
    (partial,) = cache.glob(".*.partial")
    cached(tokens, verifier, name="another verifier")
    assert partial.exists()
    c.kill()
    c.join()
    cached(tokens, verifier, name="a third verifier")
    assert not partial.exists()
    for process, connection, host in ((a, from_a, "a"), (b, from_b, "b")):
        connection.send("once more")
        assert connection.recv() == (host, found)
        connection.send("end")
        process.join()
        assert process.exitcode == 0


def test_a_killed_runs_partial_cache_is_removed_and_a_running_ones_is_not(verifier, tokens, cache):
    (cache / ".killed before it was locked.partial").mkdir()
    for name in (".killed.partial", ".filling.partial"):
        (cache / name).mkdir()
        (cache / name / LOCK).touch()
    with (cache / ".filling.partial" / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = cached(tokens, verifier)
    assert [path.name for path in cache.glob(".*")] == [".filling.partial"]
    folders = list(cache.glob("[!.]*"))
    assert len(folders) == 2
    assert len(kept.features) == len(tokens.token_ids)


@pytest.fixture
def disk(cache):
    """A disk of a megabyte that can be made read-only, for the caches."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", cache])
    if mounted.returncode:
        pytest.skip("this machine cannot mount a disk of memory")
    yield cache
    subprocess.run(["umount", "--lazy", cache], check=True)


def test_a_complete_cache_that_can_only_be_read_is_used(verifier, tokens, disk, monkeypatch):
    right = features_of(cached(tokens, verifier), 0).clone()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (disk / "a").touch()
    monkeypatch.setattr(feature_cache, "compute_features", None)
    assert torch.equal(features_of(cached(tokens, verifier), 0), right)


def test_room_that_another_process_takes_meanwhile_is_an_error_and_no_sigbus(
    verifier, tokens, disk, monkeypatch
):
    (disk / "of another process").write_bytes(bytes(2**20 - 2**14))
    monkeypatch.setattr(_Files, "_make_room", lambda _files: None)
    with pytest.raises(OSError) as error:
        cached(tokens, verifier)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename.endswith("features.bin")
    assert [path.name for path in disk.iterdir()] == ["of another process"]


def test_too_small_a_disk_is_refused_with_the_arithmetic(verifier, tokens, monkeypatch):
    real = shutil.disk_usage
    monkeypatch.setattr(
        feature_cache.shutil, "disk_usage", lambda path: real(path)._replace(free=10)
    )
    with pytest.raises(InputError, match=r"tokens x 32 x 4 bytes need .* GB.*replay"):
        cached(tokens, verifier)


def test_the_cache_is_the_main_checkouts_also_from_dvcs_checkouts(monkeypatch, tmp_path):
    monkeypatch.delenv("EAGLE_CACHE")
    main = tmp_path / "project"
    copy = main / ".dvc" / "tmp" / "exps" / "tmpabc"
    copy.mkdir(parents=True)
    for folder in (main, copy):
        monkeypatch.chdir(folder)
        assert cache_folder() == Path(os.path.realpath(main)) / ".cache" / "eagle"
