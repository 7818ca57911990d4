"""Compiled kernels on disk: used again by the next process, never stale, never in the way."""

import errno
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import npflows
from npflows.backends.cpu import ahead
from npflows.backends.cpu.compiler import disk, folders, jit, target
from npflows.backends.cpu.compiler.source import source_digest
from npflows.backends.cpu.threads import pool

pytestmark = pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled")

HELPER = "from npflows.backends.cpu.compiler.jit import inlined\n\n@inlined\ndef shift(v):\n    return v + {step}\n"
KERNEL = """from npflows.backends.cpu.compiler.jit import kernel
from {where} import shift

@kernel
def f(v):
    return shift(v)
"""
CALL = "print(f(1.0), sum(f.stats.cache_hits.values()), sum(f.stats.cache_misses.values()))"
COMPILED, LOADED = "0 1", "1 0"


class Package:
    """A copy of npflows with one tiny kernel of its own, whose helper stands in another file."""

    def __init__(self, folder):
        self.folder, self.cache = folder, folder / "cache"
        source = Path(npflows.__file__).parent
        shutil.copytree(source, folder / "npflows", ignore=shutil.ignore_patterns("__pycache__", "data"))
        (folder / "npflows/backends/cpu/tiny.py").write_text(KERNEL.format(where="npflows.backends.cpu.helper"))
        self.help("1.0")

    def help(self, step):
        """Change the helper but not the date of its file."""
        self.write(self.folder / "npflows/backends/cpu/helper.py", HELPER.format(step=step))

    @staticmethod
    def write(file, text):
        file.write_text(text)
        os.utime(file, (1e9, 1e9))

    def start(self, code, **variables):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(self.cache), **variables}
        environment.pop("PYTHONPATH", None)
        return subprocess.Popen([sys.executable, "-c", code], cwd=self.folder, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def run(self, code="from npflows.backends.cpu.tiny import f; " + CALL, **variables):
        return finished(self.start(code, **variables))

    def files(self):
        return sorted(self.cache.rglob("*.nbc*"))


def finished(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def package(tmp_path):
    return Package(tmp_path)


def test_a_second_process_compiles_nothing(package):
    assert package.run() == f"2.0 {COMPILED}"
    files = package.files()
    assert len(files) == 1
    assert package.run() == f"2.0 {LOADED}"
    assert package.files() == files


def test_a_flow_in_a_second_process_compiles_nothing():
    if folders.cache_directory() is None:
        pytest.skip("no kernel cache here")
    code = """
import numpy as np, npflows
from numba.core import event
with event.install_recorder("numba:compile") as compiled:
    flow = npflows.MAF(2, 2, (8,), rng=0)
    flow.fit(flow.sample(50, 0), max_epochs=1, rng=0, progress=False)
    flow.log_prob(np.zeros((3, 2)))
print(len(compiled.buffer))
"""
    root = str(Path(npflows.__file__).parents[1])
    counts = []
    for _ in range(2):
        process = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, check=True, capture_output=True)
        counts.append(int(process.stdout))
    assert counts[1] == 0


def test_a_changed_helper_in_another_file_is_compiled_anew(package):
    package.run()
    package.help("5.0")
    assert package.run() == f"6.0 {COMPILED}"


def test_a_changed_kernel_outside_the_package_is_compiled_anew(package):
    own = package.folder / "own.py"
    text = KERNEL.format(where="npflows.backends.cpu.helper")
    package.write(own, text)
    run = "from own import f; " + CALL
    assert package.run(run) == f"2.0 {COMPILED}"
    assert package.run(run) == f"2.0 {LOADED}"
    package.write(own, text.replace("shift(v)", "shift(v) * 2.0"))
    assert package.run(run) == f"4.0 {COMPILED}"


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "something else": lambda data: b"no kernel at all",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_compiled_anew(package, damage):
    package.run()
    (file,) = package.files()
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert package.run() == f"2.0 {COMPILED}"


def test_a_flipped_bit_is_never_run(package):
    package.run()
    (file,) = package.files()
    code = f"""
from pathlib import Path
from numba import float64
from npflows.backends.cpu.tiny import f
file, used = Path({str(file)!r}), []
data = file.read_bytes()
for place in range(0, len(data), 61):
    file.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1:])
    if f._cache.load_overload((float64,), f.targetctx) is not None:
        used.append(place)
file.write_bytes(data)
assert f._cache.load_overload((float64,), f.targetctx) is not None
print(used)
"""
    assert package.run(code) == "[]"


def test_a_cache_folder_that_can_not_be_made_is_done_without(package):
    (package.folder / "file").write_text("")
    nowhere = str(package.folder / "file/cache")
    assert package.run(NUMBA_CACHE_DIR=nowhere) == f"2.0 {COMPILED}"


def test_a_read_only_installation_and_home_are_done_without(package):
    (package.folder / "npflows/__pycache__").write_text("")  # in place of folders that forbid writing: root may always
    (package.folder / "home").write_text("")
    home = str(package.folder / "home")
    assert package.run(NUMBA_CACHE_DIR="", HOME=home, XDG_CACHE_HOME="", LOCALAPPDATA=home) == f"2.0 {COMPILED}"


def test_a_cache_on_a_read_only_file_system_is_read_and_no_more(package):
    code = """
import errno
from pathlib import Path

def refuse(*given, **options):
    raise OSError(errno.EROFS, "Read-only file system")

Path.write_bytes = Path.unlink = refuse
from npflows.backends.cpu.tiny import f
"""
    assert package.run(code + CALL) == f"2.0 {COMPILED}"
    assert package.files() == []
    package.run()
    assert package.run(code + CALL) == f"2.0 {LOADED}"


def test_kernels_that_are_compiled_ahead_but_can_not_be_kept_are_an_error(monkeypatch):
    part = f"{pool.__name__} prepare threads float32"
    ahead.compile_part(part)
    monkeypatch.setattr(disk.DiskCache, "lost", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match=r"kernels can't be kept in .*: No space left on device"):
        ahead.compile_part(part)


def test_kernels_are_kept_beside_the_package_or_else_at_home(package):
    home = package.folder / "home"
    variables = {"NUMBA_CACHE_DIR": "", "HOME": str(home), "XDG_CACHE_HOME": "", "LOCALAPPDATA": str(home)}
    beside = package.folder / "npflows/__pycache__"
    package.run(**variables)
    assert len(list(beside.rglob("*.nbc"))) == 1
    assert not home.exists()
    shutil.rmtree(beside)
    beside.write_text("")
    package.run(**variables)
    assert len(list(home.rglob("*.nbc"))) == 1
    assert package.run(**variables) == f"2.0 {LOADED}"


def test_two_processes_may_fill_an_empty_cache_at_once(package):
    both = [package.start("from npflows.backends.cpu.tiny import f; print(f(1.0))") for _ in range(2)]
    assert [finished(process) for process in both] == ["2.0", "2.0"]
    assert [file.suffix for file in package.files()] == [".nbc"]
    assert package.run() == f"2.0 {LOADED}"


POSIX = pytest.mark.skipif(not hasattr(os, "getuid"), reason="modes of POSIX")
PORTABLE = pytest.mark.skipif("x86-64-v3" not in target.portable(), reason="this CPU is of no portable level")
V3 = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}


@PORTABLE
def test_kernels_of_a_portable_target_are_used_and_give_way_to_those_of_this_cpu(package):
    assert package.run(**V3) == f"2.0 {COMPILED}"
    assert package.run() == f"2.0 {LOADED}"
    assert len(package.files()) == 1
    assert package.run(NPFLOWS_PORTABLE="0") == f"2.0 {COMPILED}"
    assert len(package.files()) == 2
    assert package.run() == f"2.0 {LOADED}"


@PORTABLE
def test_kernels_that_the_target_can_not_run_are_compiled_anew(package):
    package.run(**V3)
    assert package.run(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="") == f"2.0 {COMPILED}"


@PORTABLE
def test_a_wheel_carries_kernels_and_those_of_another_source_are_ignored(package):
    package.run(**V3)
    carried = package.folder / "npflows/prebuilt"
    carried.mkdir()
    (made,) = package.cache.iterdir()
    shutil.move(made, carried / made.name)
    assert package.run() == f"2.0 {LOADED}"
    assert package.files() == []
    assert package.run(NPFLOWS_PORTABLE="0", **V3) == f"2.0 {COMPILED}"  # to be put into a folder, for instance
    package.help("5.0")
    assert package.run() == f"6.0 {COMPILED}"


def test_a_wheel_is_only_built_with_kernels_of_its_source(package):
    root = Path(npflows.__file__).parents[1]
    file = root / "building/with_kernels.py"
    if not file.is_file():
        pytest.skip("npflows is not run from its sources")
    sets = runpy.run_path(str(file))["sets"]
    with pytest.raises(SystemExit, match=r"there are none in .*cache; make them by: npflows warmup"):
        sets(package.folder / "npflows", package.cache)
    package.run()
    assert [folder.parent for folder in sets(package.folder / "npflows", package.cache)] == [package.cache]
    package.help("5.0")
    with pytest.raises(SystemExit, match=r"those in .*cache are of another source"):
        sets(package.folder / "npflows", package.cache)


def test_an_edit_recompiles_where_kernels_are_made_and_nowhere_else(tmp_path):
    def digest(edited):
        tree = tmp_path / (edited or "as it was").replace("/", "-")
        for folder in ("backends/cpu/kernels", "core/operations", "cli"):
            (tree / folder).mkdir(parents=True)
            (tree / folder / "one.py").write_text("a = 2\n" if folder == edited else "a = 1\n")
        return source_digest(tree)

    before = digest("")
    assert digest("cli") == before
    assert len({before, digest("backends/cpu/kernels"), digest("core/operations")}) == 3


@POSIX
def test_a_cache_folder_that_others_can_write_to_is_not_used(package):
    def run(catch="error"):
        code = f"import warnings; warnings.simplefilter({catch!r}, UserWarning); from npflows.backends.cpu.tiny import f\n"
        return package.run(code + CALL)

    assert run() == f"2.0 {COMPILED}"
    assert run() == f"2.0 {LOADED}"
    (folder,) = {file.parent for file in package.files()}
    folder.chmod(0o777)
    assert run("ignore") == f"2.0 {COMPILED}"
    with pytest.raises(AssertionError, match="are not used, as others can write to it, and kernels are code"):
        run()
    folder.chmod(0o755)
    assert run() == f"2.0 {LOADED}"


@POSIX
def test_a_cache_folder_inside_one_that_others_can_write_to_is_not_used(package):
    outer = package.folder / "outer"
    package.cache = outer / "inner"
    package.cache.mkdir(parents=True)
    code = "import warnings; warnings.simplefilter('error', UserWarning); from npflows.backends.cpu.tiny import f\n" + CALL
    for open_folder in (package.cache, outer):
        open_folder.chmod(0o777)
        with pytest.raises(AssertionError, match=f"are not used, as others can write to {open_folder}, and"):
            package.run(code)
        assert package.files() == []
        link = package.folder / f"link to {open_folder.name}"
        link.symlink_to(package.cache)
        with pytest.raises(AssertionError, match=f"others can write to {open_folder}, and kernels are code: chmod go-w"):
            package.run(code, NUMBA_CACHE_DIR=str(link))
        open_folder.chmod(0o755)
    outer.chmod(0o1777)  # as /tmp is
    assert package.run(code) == f"2.0 {COMPILED}"
    assert package.run(code) == f"2.0 {LOADED}"


@POSIX
def test_folders_are_made_so_that_others_can_not_write_to_them(tmp_path):
    before = os.umask(0)
    try:
        assert folders.usable(tmp_path / "cache/npflows/kernels")
    finally:
        os.umask(before)
    assert [folder.stat().st_mode & 0o777 for folder in sorted(tmp_path.rglob("*"))] == [0o755] * 3


@POSIX
def test_a_group_that_has_one_user_is_no_other(tmp_path, monkeypatch):
    (tmp_path / "cache/npflows").mkdir(parents=True)
    (tmp_path / "cache").chmod(0o775)
    monkeypatch.setattr(folders, "_is_of_one_user", lambda group: True)
    assert folders.trusted(tmp_path / "cache/npflows")
    monkeypatch.setattr(folders, "_is_of_one_user", lambda group: False)
    package = folders.PACKAGE.stat()
    if package.st_gid == tmp_path.stat().st_gid and package.st_mode & 0o020:
        pytest.skip("the package is open to this group")
    with pytest.warns(UserWarning, match="others can write to .*cache, and"):
        assert not folders.trusted(tmp_path / "cache/npflows")


@POSIX
def test_a_folder_inside_one_of_another_user_is_not_used_but_in_a_container_that_hides_the_system(tmp_path, monkeypatch):
    if os.getuid() or folders.PACKAGE.stat().st_uid == 54321:
        pytest.skip("only the system's user can give folders away")
    (tmp_path / "cache/npflows").mkdir(parents=True)
    os.chown(tmp_path / "cache", 54321, -1)
    with pytest.warns(UserWarning, match=r"cache belongs to another user \(number 54321\), and"):
        assert not folders.trusted(tmp_path / "cache/npflows")
    monkeypatch.setattr(folders, "_stand_in", lambda: 54321)
    assert folders.trusted(tmp_path / "cache/npflows")
    os.chown(tmp_path / "cache/npflows", 54321, -1)
    with pytest.warns(UserWarning, match="it belongs to another user"):
        assert not folders.trusted(tmp_path / "cache/npflows")


@POSIX
def test_folders_that_the_package_lies_in_are_as_good_as_the_package(tmp_path, monkeypatch):
    package = tmp_path / "shared/npflows"
    (package / "__pycache__/kernels").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setattr(folders, "PACKAGE", package)
    assert folders.trusted(package / "__pycache__/kernels")
    (package / "__pycache__").chmod(0o777)
    with pytest.warns(UserWarning, match="others can write to .*__pycache__, and"):
        assert not folders.trusted(package / "__pycache__/kernels")


def test_a_kernel_that_stands_in_no_file_is_never_taken_for_another(package):
    code = """
from npflows.backends.cpu.compiler.jit import kernel
space = {"__name__": "__main__"}
exec("def f(v):\\n    return v + NUMBER\\n", space)
f = kernel(space["f"])
"""
    assert package.run(code.replace("NUMBER", "1.0") + CALL) == f"2.0 {COMPILED}"
    assert package.run(code.replace("NUMBER", "5.0") + CALL) == f"6.0 {COMPILED}"
