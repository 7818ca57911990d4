"""Random numbers from counters: the published ones, the same on every backend and on any number of threads; their laws."""

import itertools

import numpy as np
import pytest
import scipy.stats

import npflows
from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels import counters
from npflows.backends.reference import BACKEND as REFERENCE
from npflows.backends.reference.counters import philox
from npflows.core.backend import select
from npflows.core.counters import FARTHEST, new_key

KEY = new_key(np.random.default_rng(1))
DF = np.array([0.1, 1.0, 5.0, 30.0, 1e6])
LAWS = {
    "uniform": lambda backend, n, first=0: backend.uniforms((KEY, first), n),
    "normal": lambda backend, n, first=0: backend.normals((KEY, first), n),
    "student_t": lambda backend, n, first=0: backend.student_ts((KEY, first * len(DF)), n, DF),
}
for_every_law = pytest.mark.parametrize("draw", LAWS.values(), ids=LAWS)
# of Random123, kat_vectors: counter, key and words of philox4x32 with 10 rounds
PUBLISHED = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@kernel
def kernels_philox(counter, key, words):
    words[0], words[1], words[2], words[3] = counters.philox(
        counter[0], counter[1], counter[2], counter[3], key[0], key[1]
    )  # fmt: skip


@pytest.mark.nojit
@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_words_are_the_published_ones(counter, key, expected):
    counter, key, words = np.array(counter, np.uint64), np.array(key, np.uint64), np.zeros(4, np.uint64)
    kernels_philox(counter, key, words)
    assert words.tolist() == expected
    assert philox(counter[:, None], key).ravel().tolist() == expected


@pytest.mark.nojit
def test_backends_draw_the_same_numbers():
    for first, n in itertools.product((0, 1, 2**33 + 6), (0, 1, 2, 7, 127, 128, 129, 300)):
        for law, tolerance in (("uniform", 0), ("normal", 3e-15), ("student_t", 1e-12)):
            here, there = (LAWS[law](backend, n, first) for backend in (select(), REFERENCE))
            np.testing.assert_allclose(here, there, rtol=tolerance, err_msg=law)


@for_every_law
def test_no_value_depends_on_how_many_are_drawn_nor_on_threads(draw):
    npflows.set_num_threads(1)
    every = draw(select(), 30_001)
    for n in (1, 2, 63, 64, 129, 4096, 4097):
        np.testing.assert_array_equal(draw(select(), n), every[:n])
        np.testing.assert_array_equal(draw(select(), 200, n), every[n : n + 200])
        np.testing.assert_array_equal(draw(REFERENCE, n), draw(REFERENCE, 5000)[:n])
        np.testing.assert_array_equal(draw(REFERENCE, 200, n), draw(REFERENCE, 5000)[n : n + 200])
    for number in (2, 5):
        npflows.set_num_threads(number)
        np.testing.assert_array_equal(draw(select(), 30_001), every)


def is_uniform(p, bins=200):
    """Whether values between 0 and 1 are spread over bins as they should be."""
    counts = np.histogram(p, bins, (0, 1))[0]
    return scipy.stats.chisquare(counts).pvalue > 1e-3 and scipy.stats.kstest(p, "uniform").pvalue > 1e-3


def test_values_follow_their_laws():
    n = 200_000
    assert is_uniform(LAWS["uniform"](select(), n))
    assert is_uniform(scipy.stats.norm.cdf(LAWS["normal"](select(), n)))
    for t, df in zip(LAWS["student_t"](select(), n).T, DF):
        assert is_uniform(scipy.stats.t.cdf(t, df))


def test_normal_values_have_the_moments_and_tails_of_the_normal_law():
    z = LAWS["normal"](select(), 4_000_000)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 4 * np.sqrt(variance / z.size)
    for bound in (-4.0, -3.0, 3.0, 4.0, 4.5):
        beyond, expected = np.sum(z * np.sign(bound) > abs(bound)), z.size * scipy.stats.norm.sf(abs(bound))
        assert abs(beyond - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_neighbors_are_independent(law):
    pairs = LAWS[law](select(), 400_000).reshape(-1, 4)
    for values in (pairs, pairs**2, abs(pairs) ** 0.5):
        correlations = np.corrcoef(values.T)[np.triu_indices(4, 1)]
        assert abs(correlations).max() < 4 / np.sqrt(len(pairs))
    assert abs(np.corrcoef(pairs[1:, 0], pairs[:-1, 3])[0, 1]) < 4 / np.sqrt(len(pairs))


def test_other_keys_give_other_values():
    z = LAWS["normal"](select(), 20_000)
    for word in range(4):
        key = KEY.copy()
        key[word] ^= 1
        assert abs(np.corrcoef(z, select().normals((key, 0), 20_000))[0, 1]) < 4 / np.sqrt(20_000)


def test_the_heaviest_tails_stay_in_range():
    t = select().student_ts((KEY, 0), 10**6, np.array([0.1]))
    assert np.isfinite(t).all()
    assert 1e40 < abs(t).max() <= FARTHEST
