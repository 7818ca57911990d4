"""Pictures of tables, samples, images, densities, training and calibration.

Each function returns a Matplotlib figure, which is made without pyplot: `figure.savefig("name.png")` writes it.  With given
axes it draws into them.  Data are gray, results of a flow are orange.  Matplotlib is imported for the first picture.
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
