#!/usr/bin/env bash
# scikit-learn fits the numbers beneath the masks of numpy.ma and of astropy, and its check for finite values passes them.
#
# Behavior (scikit-learn 1.9.1, numpy 2.4.6, astropy 8.0.2): StandardScaler().fit(x).mean_ for three magnitudes 20, a masked
# -999 and 21 is -319.3, as if there were no mask; x.mean() of the same arrays is 20.5.  Nothing is raised or warned of.
# One would expect: an error, as for NaN, or the masked entry left out, as the arrays' own methods do.
# It matters because astropy reads missing entries of VOTables, ECSV and FITS as masked columns with a fill value beneath.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 astropy==8.0.2
"$work/venv/bin/python" -W error - <<'PY'
import astropy
import numpy as np
import sklearn
from astropy.table import Table
from astropy.utils.masked import Masked
from sklearn.preprocessing import StandardScaler

print("scikit-learn", sklearn.__version__, "numpy", np.__version__, "astropy", astropy.__version__)
values, mask = np.array([[20.0], [-999.0], [21.0]]), np.array([[False], [True], [False]])
column = Table({"mag": values[:, 0]}, masked=True)["mag"]
column.mask = mask[:, 0]
given = {
    "numpy.ma": np.ma.array(values, mask=mask),
    "astropy Masked": Masked(values, mask=mask),
    "a masked column of astropy": column.reshape(-1, 1),
}
for name, x in given.items():
    fitted, own = StandardScaler().fit(x).mean_[0], float(np.asarray(x.mean()))
    print(f"{name}: fitted mean {fitted:.1f}, the array's own mean {own:.1f}")
    assert abs(fitted + 319.333) < 0.01, f"{name}: the mask is heeded now"
    assert abs(own - 20.5) < 1e-9, name
print("what masks hide is fitted")
PY
