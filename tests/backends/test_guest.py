"""A good guest: npflows inside other people's processes, threads and settings."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows.core import threads as setting

ROOT = str(Path(npflows.__file__).parents[1])
X = np.random.default_rng(0).normal(size=(3000, 3))
PATIENCE = 120  # seconds until a child counts as hanging

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
forks_among_threads = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def maf():
    flow = npflows.MAF(3, 2, (8,), rng=0)
    flow.params = np.random.default_rng(1).normal(0, 0.3, flow.num_params)
    return flow


def alone(code, **variables):
    """The output of a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": ROOT, **variables}
    process = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_import_compiles_nothing_starts_no_thread_and_brings_little():
    code = """
import os, sys, threading, numpy, numba
from numba.core import event
def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
before = tasks()
with event.install_recorder("numba:compile") as compiled:
    import npflows
heavy = {"scipy.linalg", "matplotlib", "tqdm", "threadpoolctl", "joblib", "pandas"}
print(len(compiled.buffer), threading.active_count(), tasks() - before, sorted(heavy.intersection(sys.modules)))
"""
    assert alone(code) == "0 1 0 []"


def test_use_leaves_every_setting_of_the_process_as_it_was():
    code = """
import os, signal, sys, warnings, numpy as np, numba
import scipy.linalg
try:
    from threadpoolctl import threadpool_info
except ImportError:
    threadpool_info = list
def settings():
    state = np.random.get_state()
    config = {name: repr(value) for name, value in vars(numba.config).items() if name.isupper()}
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    blas = sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info())
    random = (state[1].tobytes(), *state[2:])
    return [random, config, handlers, blas, np.geterr(), dict(os.environ), list(sys.path), warnings.filters[:]]
before = settings()
import npflows
npflows.set_num_threads(3)
flow = npflows.MAF(3, 2, (8,))
x = flow.sample(3000)
flow.fit(x, max_epochs=2, progress=False)
flow.log_prob(x)
changed = [i for i, (a, b) in enumerate(zip(before, settings())) if a != b]
print(changed, "joblib" in sys.modules, "matplotlib" in sys.modules)
"""
    assert alone(code) == "[] False False"


def test_a_small_batch_starts_no_thread():
    code = """
import threading, numpy as np, npflows
npflows.set_num_threads(4)
npflows.MAF(3, 2, (8,)).log_prob(np.zeros((16, 3)))
print(threading.active_count())
"""
    assert alone(code) == "1"


def test_idle_helpers_do_not_keep_the_process_alive():
    code = "import numpy as np, npflows; npflows.set_num_threads(4); npflows.MAF(3, 2, (8,)).log_prob(np.zeros((3000, 3)))"
    assert alone(code) == ""


def test_a_wrong_environment_variable_stops_the_use_but_not_the_import():
    code = """
import numpy as np, npflows
try:
    npflows.MAF(3, 2, (8,)).log_prob(np.zeros((3000, 3)))
except ValueError as error:
    print(error)
"""
    expected = "NPFLOWS_NUM_THREADS must be a whole number of at least 1, got 'two'"
    assert alone(code, NPFLOWS_NUM_THREADS="two") == expected


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "two", " "])
def test_a_wrong_environment_variable_is_refused(monkeypatch, text):
    monkeypatch.setenv("NPFLOWS_NUM_THREADS", text)
    with pytest.raises(ValueError, match=f"NPFLOWS_NUM_THREADS must be a whole number of at least 1, got '{text}'"):
        npflows.get_num_threads()


def test_the_environment_variable_counts_until_a_number_is_set(monkeypatch):
    monkeypatch.setenv("NPFLOWS_NUM_THREADS", "7")
    assert npflows.get_num_threads() == 7
    npflows.set_num_threads(np.int64(3))
    assert npflows.get_num_threads() == 3
    npflows.set_num_threads(None)
    assert npflows.get_num_threads() == 7


@pytest.mark.parametrize("n", [0, -2, 1.0, "2", True])
def test_a_wrong_number_of_threads_is_refused(n):
    npflows.set_num_threads(2)
    with pytest.raises(ValueError, match="the number of threads must be a whole number of at least 1, got"):
        npflows.set_num_threads(n)
    assert npflows.get_num_threads() == 2


@pytest.mark.parametrize(("cpus", "quota", "expected"), [(5, np.inf, 5), (5, 2.5, 3), (5, 0.2, 1), (2, 8.0, 2)])
def test_the_default_respects_affinity_and_quota(monkeypatch, cpus, quota, expected):
    for name in ("NPFLOWS_NUM_THREADS", *setting.LIMITS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cpus)), raising=False)
    monkeypatch.setattr(setting, "_cpu_quota", lambda: quota)
    assert npflows.get_num_threads() == expected


POOLS = (
    ({"OMP_NUM_THREADS": "1"}, 1),
    ({"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, 2),
    ({"OMP_NUM_THREADS": "4,2"}, 4),
    ({"OMP_NUM_THREADS": "99"}, 5),
    ({"OMP_NUM_THREADS": ""}, 5),
    ({"OMP_NUM_THREADS": "many"}, 5),
    ({"OMP_NUM_THREADS": "1", "NPFLOWS_NUM_THREADS": "7"}, 7),
)


@pytest.mark.parametrize(("limits", "expected"), POOLS)
def test_what_a_pool_of_processes_sets_for_its_workers_is_honored(monkeypatch, limits, expected):
    for name in ("NPFLOWS_NUM_THREADS", *setting.LIMITS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(5)), raising=False)
    monkeypatch.setattr(setting, "_cpu_quota", lambda: np.inf)
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    assert npflows.get_num_threads() == expected
    npflows.set_num_threads(6)
    assert npflows.get_num_threads() == 6


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this platform")
def test_a_process_bound_to_one_cpu_uses_one_thread():
    code = "import os, npflows; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(npflows.get_num_threads())"
    assert alone(code, NPFLOWS_NUM_THREADS="") == "1"


QUOTAS = {
    "version 2": ({"cpu.max": "150000 100000\n"}, 1.5),
    "version 2, none": ({"cpu.max": "max 100000\n"}, np.inf),
    "version 1": ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    "version 1, none": ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, np.inf),
    "no cgroup": ({}, np.inf),
    "unreadable": ({"cpu.max": "\n"}, np.inf),
}


@pytest.mark.parametrize("kind", QUOTAS)
def test_the_quota_of_a_container_is_read(monkeypatch, tmp_path, kind):
    files, expected = QUOTAS[kind]
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(setting, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert setting._cpu_quota.__wrapped__() == expected


def child(connection, flow):
    """Work in a child process and send what came out."""
    connection.send((flow.log_prob(X), flow.nll_and_grad(X)[1], threading.active_count()))
    connection.close()


def in_a_child(flow):
    """The same in a forked daemon process, which may not hang."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, flow), daemon=True)
    process.start()
    sender.close()
    try:
        assert receiver.poll(PATIENCE), "the child hangs"
        return receiver.recv()
    finally:
        process.kill()
        process.join()


@needs_fork
@forks_among_threads
def test_a_forked_child_computes_the_same_bits_after_threads_were_used():
    npflows.set_num_threads(2)
    flow = maf()
    log_prob, gradient = flow.log_prob(X), flow.nll_and_grad(X)[1]
    there = in_a_child(flow)
    np.testing.assert_array_equal(there[0], log_prob)
    np.testing.assert_array_equal(there[1], gradient)
    assert there[2] == 2, "no helper was started"


@needs_fork
@forks_among_threads
def test_a_child_forked_while_another_thread_works_computes_the_same_bits():
    npflows.set_num_threads(2)
    flow, done = maf(), threading.Event()
    log_prob = flow.log_prob(X)

    def work():
        while not done.is_set():
            flow.log_prob(X)

    with ThreadPoolExecutor(1) as other:
        other.submit(work)
        try:
            children = [in_a_child(flow) for _ in range(5)]
        finally:
            done.set()
    for there in children:
        np.testing.assert_array_equal(there[0], log_prob)


def test_a_spawned_process_computes_the_same_bits():
    flow = maf()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(flow.log_prob, X).result(PATIENCE)
    np.testing.assert_array_equal(there, flow.log_prob(X))


def test_two_threads_at_once_get_the_right_results():
    npflows.set_num_threads(2)
    flows = [maf() for _ in range(6)]
    expected = flows[0].log_prob(X), flows[0].nll_and_grad(X)[1], flows[0].sample(500, 3)

    def work(flow):
        return flow.log_prob(X), flow.nll_and_grad(X)[1], flow.sample(500, 3)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, [*flows, *[flows[0]] * 6]))  # flows of their own, and one that both share
    for result in results:
        for there, here in zip(result, expected):
            np.testing.assert_array_equal(there, here)


def test_two_fits_at_once_give_the_bits_of_one():
    flows = [maf() for _ in range(3)]
    options = {"max_epochs": 3, "batch_size": 500, "rng": 0, "progress": False}
    flows[0].fit(X, **options)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda flow: flow.fit(X, **options), flows[1:]))
    for flow in flows[1:]:
        np.testing.assert_array_equal(flow.params, flows[0].params)


def test_a_flow_whose_arrays_arrive_read_only_is_used_and_fitted():
    """As joblib hands over large ones, which it maps from files."""
    flow, buffers, condition = npflows.MAF(3, 2, (8,), condition_dim=1, rng=0), [], X[:, :1] ** 2
    flow.standardize_condition(0.5, 2.0)
    data = pickle.dumps(flow, protocol=5, buffer_callback=buffers.append)
    there = pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])
    assert len(buffers) > 4
    npflows.set_num_threads(2)
    np.testing.assert_array_equal(there.log_prob(X, condition), flow.log_prob(X, condition))
    options = {"max_epochs": 1, "batch_size": 500, "rng": 0, "progress": False}
    fitted = [one.fit(X, condition=condition, **options).params for one in (flow, there)]
    np.testing.assert_array_equal(*fitted)


def short_fit(x=X, **options):
    return maf().fit(x, max_epochs=4, batch_size=500, rng=2, **options)


def test_the_table_is_left_alone_whatever_its_layout(tmp_path):
    x, weight = X.astype(np.float32), np.random.default_rng(1).uniform(size=3000)
    before = x.copy(), weight.copy()
    reference = short_fit(x.astype(np.float64), sample_weight=weight)
    x.tofile(tmp_path / "table")
    mapped = np.memmap(tmp_path / "table", np.float32, "r", shape=x.shape)
    wide = np.zeros((3000, 7), ">f8")
    wide[:, 1:6:2] = x
    for table in (x, mapped, wide[:, 1:6:2], np.asfortranarray(x), x.tolist()):
        if isinstance(table, np.ndarray):
            table.flags.writeable = False
        np.testing.assert_array_equal(short_fit(table, sample_weight=weight).params, reference.params)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(weight, before[1])


def test_progress_is_silent_unless_wanted(capfd, monkeypatch):
    short_fit()
    short_fit(progress=False)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # not installed
    flow = short_fit(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 4/4" in err
    assert f"{flow.history['validation_loss'][-1]:.4f}" in err


def test_progress_is_a_bar_where_tqdm_is_installed(capfd):
    pytest.importorskip("tqdm")
    short_fit(progress=True)
    assert "4/4" in capfd.readouterr().err
