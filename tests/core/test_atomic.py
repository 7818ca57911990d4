"""Files that are replaced: modes, names, leftovers, interrupts and full disks."""

import errno
import os
import re
import stat
import time

import pytest

from npflows.core import atomic
from npflows.core.atomic import atomic_write

posix = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o200])
def test_a_file_keeps_its_mode(path, mode):
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.chmod(0o600)
    assert path.read_bytes() == b"new"


@posix
def test_a_new_file_has_the_mode_that_others_get(path):
    before = os.umask(0o027)
    try:
        write(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
def test_a_read_only_file_is_left_alone(path):
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="read-only: save under another name"):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


@posix
def test_other_names_of_a_file_keep_the_old_content_and_that_is_said(path):
    path.write_bytes(b"old")
    twin = path.with_name("twin")
    os.link(path, twin)
    with pytest.warns(UserWarning, match="1 more names"):
        write(path)
    assert (path.read_bytes(), twin.read_bytes()) == (b"new", b"old")


@posix
def test_a_symbolic_link_stays_one(path):
    target = path.with_name("target")
    target.write_bytes(b"old")
    path.symlink_to(target)
    write(path)
    assert path.is_symlink()
    assert target.read_bytes() == b"new"


def test_an_error_names_the_file_that_was_asked_for(path, monkeypatch):
    def refuse(name, flags, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    monkeypatch.setattr(atomic.os, "open", refuse)
    with pytest.raises(PermissionError) as caught:
        write(path)
    assert caught.value.filename == str(path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no such folder: '.*missing'"):
        write(tmp_path / "missing" / "flow.npz")


@posix
def test_what_is_no_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no file"):
        write(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write(tmp_path)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" * 201])
def test_long_names(tmp_path, name):
    write(tmp_path / name)
    write(tmp_path / name, b"newer")
    assert (tmp_path / name).read_bytes() == b"newer"
    assert len(os.listdir(tmp_path)) == 1


def leftover(path, age):
    left = path.with_name(f".{path.name}.0123abcd.tmp")
    left.write_bytes(b"half")
    then = time.time() - age
    os.utime(left, (then, then))
    return left


def test_what_a_killed_process_left_is_removed_by_the_next_write(path):
    left = leftover(path, 2 * atomic.STALE)
    other = leftover(path.with_name("other"), 2 * atomic.STALE)
    write(path)
    assert not left.exists()
    assert other.exists()  # of another file


def test_what_somebody_may_be_writing_is_left(path):
    young = leftover(path, 0)
    write(path)
    assert young.exists()


@posix
def test_what_somebody_writes_is_left_however_slow(path):
    with atomic_write(path) as file:
        file.write(b"first")
        (mine,) = path.parent.iterdir()
        os.utime(mine, (1, 1))
        write(path, b"second")
        assert mine.exists()
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_comes_out_as_itself(path, interrupt):
    def interrupted(file):
        file.write(b"half")
        try:
            raise interrupt
        finally:  # as closing an archive with a member that is open does
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")

    path.write_bytes(b"old")
    with pytest.raises(interrupt), atomic_write(path) as file:
        interrupted(file)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    path.write_bytes(b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


@posix
def test_a_loop_of_links_is_an_error_of_the_system(path):
    path.symlink_to(path)
    with pytest.raises(OSError, match=re.escape(str(path))) as raised:
        write(path)
    assert raised.value.errno == errno.ELOOP
