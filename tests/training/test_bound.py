"""Rows far from all others: no choice of the best epoch hangs on them, no gradient is theirs, and they are named."""

import math

import numpy as np
import pytest
from helpers import fitted, same_bits

import npflows
from npflows.training.bound import LossBound

RNG = np.random.default_rng(0)


def bent(n):
    x = RNG.normal(size=(n, 2))
    x[:, 1] += x[:, 0] ** 2
    return x


TRAIN, VALIDATION, TEST = bent(1500), bent(300), bent(2000)
OPTIONS = {"max_epochs": 12, "learning_rate": 5e-3, "batch_size": 128}


def maf(**options):
    return npflows.MAF(2, 2, (16,), log_tails=None, rng=0, **options)  # whose losses grow with the square


def with_rows(x, places, value):
    x = x.copy()
    x[places, 1] = value
    return x


CLEAN = fitted(maf(), TRAIN, validation_data=VALIDATION, **OPTIONS)


@pytest.mark.parametrize("wild", [1e2, 1e4, 1e20, 9.96921e36, 1e39, 1e300])
def test_one_wild_validation_row_does_not_choose_the_epoch_and_is_named(wild):
    with pytest.warns(UserWarning, match=r"1 of 300 rows of validation_data dominate the validation loss.*: row 17 \("):
        flow = fitted(maf(), TRAIN, validation_data=with_rows(VALIDATION, 17, wild), **OPTIONS)
    assert flow.log_prob(TEST).mean() > CLEAN.log_prob(TEST).mean() - 0.02
    assert flow.history["validation_loss"][-1] > 6
    assert max(flow.history["clipped_loss"]) < 4


@pytest.mark.parametrize("n", [5, 20, 60])
def test_one_wild_row_among_few_does_not_choose_the_epoch(n):
    with pytest.warns(UserWarning, match=f"1 of {n} rows of validation_data dominate the validation loss"):
        flow = fitted(maf(), TRAIN, validation_data=with_rows(VALIDATION[:n], 3, 1e3), **OPTIONS)
    assert flow.log_prob(TEST).mean() > CLEAN.log_prob(TEST).mean() - 0.1


@pytest.mark.filterwarnings("ignore:.*is it transposed")
@pytest.mark.parametrize("n", [1, 2, 4])
def test_one_row_of_very_few_is_far_from_no_others(n):
    x = TRAIN[:20]
    fitted(maf(), x, validation_data=x[:n] + 30, max_epochs=40, learning_rate=5e-2)


@pytest.mark.filterwarnings("ignore:.*is it transposed")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_single_validation_rows_still_validate(n):
    flow = fitted(maf(), TRAIN, validation_data=VALIDATION[:n], **OPTIONS)
    assert flow.history["clipped_loss"] == flow.history["validation_loss"]


def test_wild_rows_of_an_automatic_split_are_named_by_their_number_in_the_table():
    numbers = np.arange(0, 1500, 300)
    x = with_rows(TRAIN, numbers, 5e3)
    flow = maf()
    fitted(flow, TRAIN, max_epochs=0)  # its units are those of the clean rows
    with pytest.warns(UserWarning, match="of 1350 training rows of x dominate the training loss") as caught:
        fitted(flow, x, **OPTIONS)
    said = " ".join(str(warning.message) for warning in caught)
    for number in numbers:
        assert f" {number} (" in said, said
    assert flow.log_prob(TEST).mean() > CLEAN.log_prob(TEST).mean() - 0.1


def test_weighted_wild_rows_count_by_their_weight():
    weight = np.where(np.arange(300) == 17, 1e-9, 1.0)
    fitted(maf(), TRAIN, validation_data=with_rows(VALIDATION, 17, 1e2), validation_weight=weight, **OPTIONS)
    weight[17] = 2.0
    with pytest.warns(UserWarning, match="dominate the validation loss"):
        flow = fitted(maf(), TRAIN, validation_data=with_rows(VALIDATION, 17, 1e2), validation_weight=weight, **OPTIONS)
    assert flow.log_prob(TEST).mean() > CLEAN.log_prob(TEST).mean() - 0.02


def test_wild_training_rows_do_not_stop_the_others_from_learning():
    x, flow = with_rows(TRAIN, np.arange(4), 1e6), maf()
    fitted(flow, TRAIN, max_epochs=0)
    with pytest.warns(UserWarning, match="4 of 1500 training rows of x dominate the training loss"):
        fitted(flow, x, validation_data=VALIDATION, **{**OPTIONS, "max_epochs": 20})
    assert flow.log_prob(TEST).mean() > CLEAN.log_prob(TEST).mean() - 0.1


def test_a_training_row_without_a_finite_loss_is_named():
    flow = maf()
    fitted(flow, TRAIN, max_epochs=0)
    with pytest.warns(
        UserWarning, match=r"1 of 1500 training rows of x dominate .* they make it infinite: row 100 .* not taken"
    ):
        fitted(flow, with_rows(TRAIN, 100, 1e39), validation_data=VALIDATION, **OPTIONS)
    assert flow.log_prob(TEST).mean() > CLEAN.log_prob(TEST).mean() - 0.1


def test_clean_rows_are_judged_by_their_plain_mean():
    assert CLEAN.history["clipped_loss"] == CLEAN.history["validation_loss"]
    alone = fitted(maf(), TRAIN, validation_fraction=0.0, **OPTIONS)
    assert alone.history["clipped_loss"] == alone.history["train_loss"]


def test_no_epoch_better_than_the_start_is_a_warning():
    flow = fitted(maf(), TRAIN, validation_data=VALIDATION, **OPTIONS)
    before = flow.params
    with pytest.warns(UserWarning, match="no epoch was better than the parameters that the run began with"):
        fitted(flow, RNG.normal(5, 1, (200, 2)), validation_data=VALIDATION, max_epochs=2, learning_rate=1e-2)
    np.testing.assert_array_equal(flow.params, before)


def test_a_resumed_run_keeps_its_bounds(path):
    options = {**OPTIONS, "max_epochs": 6, "validation_data": with_rows(VALIDATION, 17, 1e3)}
    with pytest.warns(UserWarning, match="dominate"):
        whole = fitted(maf(), TRAIN, **options)
    with pytest.warns(UserWarning, match="dominate"):
        fitted(maf(), TRAIN, checkpoint=path, callbacks=lambda flow, record: record["epoch"] == 2, **options)
    with pytest.warns(UserWarning, match="dominate"):
        same_bits(fitted(maf(), TRAIN, checkpoint=path, resume=True, **options), whole)


def test_the_bound_of_losses():
    losses = np.append(RNG.exponential(size=1000), [1e6, np.inf, np.nan])
    bound = LossBound.of(losses, None, 1, judging=False)
    assert bound.typical == pytest.approx(math.log(2), abs=0.1)
    assert bound.most == pytest.approx(bound.typical + 50 * math.log(5), rel=0.1)
    np.testing.assert_array_equal(bound.far(losses), [1000, 1001, 1002])
    few = LossBound.of(losses[:20], None, 1, judging=True)
    assert few.most - few.typical == pytest.approx(8 * few.spread)
    weighted = LossBound.of(np.array([0.0, 1.0, 1e9]), np.array([1.0, 18.0, 1.0]), 4, judging=False)
    assert weighted == (1.0, 101.0, 2.0)
    assert LossBound.of(np.full(5, np.nan), None, 1, judging=True).most == math.inf
