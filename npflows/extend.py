"""Parts to make layers and base distributions of your own.

A layer is a subclass of `Layer` that passes its parameters (`Parameter`) and the rows of scratch it wants to the
constructor, sets `kernels` to four functions decorated with `kernel`, and gives them what they must know as integers in
`spec`.  All kernels work on blocks (rows, lanes), in which a column is a sample, and return nothing:

    forward(spec, theta, context, key, first, block, log_det, work, temp)
        block holds x on entry, y on return; log_det (lanes,) += log |det dy/dx|
    inverse(spec, theta, context, key, first, block, log_det, work, temp)
        block holds y on entry, x on return; log_det (lanes,) += log |det dx/dy|
    forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext)
        dblock holds dL/dy on entry, dL/dx on return; dtheta and dcontext += dL/dtheta and dL/dcontext
    inverse_vjp(...)
        the same for inverse: dblock holds dL/dx on entry, dL/dy on return

spec (int64) is what `spec` returned, theta the layer's parameters one after the other, context (condition_dim, lanes) the
condition, key and first are for random masks, work (`work_rows`, lanes) is what forward or inverse left for its vjp, temp
(`temp_rows`, lanes) is scratch, and dtheta is empty where no gradient of the parameters is wanted.  There are 16 lanes or
a multiple of it, or one (see `Layer.one_lane`), and nothing may mix them; helpers are decorated with `inlined`; `vecmath`
has functions that vectorize.  examples/custom_layer.py is a whole layer, and `npflows.load(path, classes=[YourLayer])`
reads a flow that has one.
"""

try:
    from npflows.backends.cpu.compiler.jit import inlined, kernel
    from npflows.backends.cpu.kernels import vecmath
    from npflows.backends.cpu.link import Link
except ImportError as error:
    raise ImportError("npflows.extend needs Numba, which compiles kernels: pip install numba scipy") from error
from npflows.base.base import Base
from npflows.core.parameters import Parameter
from npflows.layers.layer import Layer

__all__ = ["Base", "Layer", "Link", "Parameter", "inlined", "kernel", "vecmath"]
