"""Axes say the units of columns that have one."""

import matplotlib.pyplot as plt
import numpy as np

import npflows
from npflows import plotting
from npflows.cli import main


def test_axes_of_densities_have_units():
    flow = npflows.MAF(2, 1, (4,), columns=["z", "mass"], rng=0)
    flow.units = [None, "kg"]
    ax = plotting.density_2d(flow, ranges=[(-1, 1), (-1, 1)], n_points=8).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z", "mass [kg]")
    alone = npflows.MAF(1, 1, (4,), columns=["t"], rng=0)
    alone.units = ["s"]
    assert plotting.density_1d(alone, ranges=(-1, 1), n_points=8).axes[0].get_xlabel() == "t [s]"
    plt.close("all")


def test_corner_plots_of_the_command_have_units(tmp_path, monkeypatch):
    flow = npflows.MAF(2, 1, (4,), columns=["z", "mass"], rng=0)
    flow.units = [None, "kg"]
    flow.save(tmp_path / "flow.npz")
    np.savetxt(tmp_path / "t.csv", flow.sample(60, 0), delimiter=",", header="z,mass", comments="")
    seen, corner = [], plotting.corner
    monkeypatch.setattr(plotting, "corner", lambda *a, **given: seen.append(given["columns"]) or corner(*a, **given))
    for table in ([], [f"{tmp_path}/t.csv"]):
        assert main(["plot", f"{tmp_path}/flow.npz", *table, "-o", f"{tmp_path}/p.png", "-n", "50", "--quiet"]) == 0
    assert seen == [["z", "mass [kg]"]] * 2
