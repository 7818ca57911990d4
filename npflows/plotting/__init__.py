"""Pictures of tables, samples, images, densities, training and calibration; Matplotlib is imported for the first one.

Each function returns the figure, made without pyplot so that `figure.savefig("name.png")` is all there is to do, or draws
into axes that are given.  What comes from data is grey, what comes from a flow is orange.
"""

from npflows.plotting.densities import density_1d, density_2d
from npflows.plotting.mosaic import images
from npflows.plotting.pairs import corner
from npflows.plotting.style import check_picture, require_matplotlib, save_picture
from npflows.plotting.training import training_curve
from npflows.plotting.uniformity import calibration, latent

__all__ = [
    "calibration",
    "check_picture",
    "corner",
    "density_1d",
    "density_2d",
    "images",
    "latent",
    "require_matplotlib",
    "save_picture",
    "training_curve",
]
