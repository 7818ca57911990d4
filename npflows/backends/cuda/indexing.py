"""Arrays in kernels whose indices are taken as they are.

Numba asks of each signed index whether it counts from the end, and of each bound of a slice, so that all arrays' sizes stay
in registers: up to a third of a kernel's registers, and a fifth of its code.  No index of npflows' texts counts from the
end, but for constants, and no slice begins there.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import core_models, intrinsic, lower_builtin, register_model
from numba.cuda.np.arrayobj import fancy_setslice, load_item, make_array, populate_array, store_item


class Plain(types.Array):
    """The type of an array whose indices and slices begin at 0 or later."""

    def __init__(self, array: types.Array, **others: Any) -> None:
        given = {"dtype": array.dtype, "ndim": array.ndim, "layout": array.layout, "readonly": not array.mutable}
        given |= {name: value for name, value in others.items() if value is not None}
        super().__init__(**given, name="plain array({dtype}, {ndim}d, {layout}, {readonly})".format(**given))

    def copy(self, dtype: Any = None, ndim: Any = None, layout: Any = None, readonly: Any = None) -> Plain:
        """The type of a part of such an array."""
        return Plain(self, dtype=dtype, ndim=ndim, layout=layout, readonly=readonly)

    def unify(self, typingctx: Any, other: Any) -> Any:
        """The type of what is one of two arrays."""
        found = super().unify(typingctx, other)
        return None if found is None else Plain(found)


register_model(Plain)(core_models.ArrayModel)


@intrinsic
def plain(typingctx, value):
    """An array as a `Plain` one; anything else as it is."""
    result = Plain(value) if isinstance(value, types.Array) else value
    return result(value), lambda context, builder, signature, args: args[0]


@intrinsic
def pointer_of(typingctx, array):
    """Where an array begins in memory."""

    def generate(context, builder, signature, args):
        return builder.ptrtoint(make_array(signature.args[0])(context, builder, args[0]).data, ir.IntType(64))

    return types.int64(array), generate


@intrinsic
def moved(typingctx, array, address):
    """An array of the same shape and strides that begins elsewhere in memory."""

    def generate(context, builder, signature, args):
        part = make_array(signature.return_type)(context, builder, args[0])
        part.data = builder.inttoptr(args[1], part.data.type)
        return part._getvalue()

    return array(array, types.int64), generate


def _index(context: Any, builder: Any, kind: Any, index: Any, size: Any) -> Any:
    """An index as it is, but for a constant that counts from the end."""
    if isinstance(index, ir.Constant) and index.constant < 0:
        return builder.add(size, context.cast(builder, index, kind, types.intp))
    return context.cast(builder, index, kind, types.intp if kind.signed else types.uintp)


def _part(context: Any, builder: Any, kind: Any, array: Any, indices: list[tuple[Any, Any]]) -> tuple[Any, list, list]:
    """Where a part of an array begins, its shape and its strides; slices may end beyond the array."""
    zero, one = (context.get_constant(types.intp, number) for number in (0, 1))
    sizes, steps = (cgutils.unpack_tuple(builder, of_axes, kind.ndim) for of_axes in (array.shape, array.strides))
    begins, shape, strides = [], [], []
    for axis, (size, step) in enumerate(zip(sizes, steps)):
        index_type, index = indices[axis] if axis < len(indices) else (None, None)
        if index_type is None:
            begins.append(zero)
            shape.append(size)
            strides.append(step)
        elif isinstance(index_type, types.SliceType):
            part = context.make_helper(builder, index_type, value=index)
            end = builder.select(builder.icmp_signed("<", part.stop, size), part.stop, size)
            length = builder.sub(end, part.start)
            if index_type.has_step:
                length = builder.sdiv(builder.add(length, builder.sub(part.step, one)), part.step)
                step = builder.mul(step, part.step)
            begins.append(part.start)
            shape.append(builder.select(builder.icmp_signed(">", length, zero), length, zero))
            strides.append(step)
        elif isinstance(index_type, types.Integer):
            begins.append(_index(context, builder, index_type, index, size))
        else:
            raise NotImplementedError(f"an array of a kernel has the index {index_type}")
    place = cgutils.get_item_pointer(context, builder, kind, array, begins)
    return place, shape, strides


def _given(builder: Any, kind: Any, index: Any) -> list[tuple[Any, Any]]:
    """The types and values of one index, or of a tuple of them."""
    if isinstance(kind, types.BaseTuple):
        return list(zip(kind.types, cgutils.unpack_tuple(builder, index, len(kind))))
    return [(kind, index)]


@lower_builtin(operator.getitem, Plain, types.Integer)
@lower_builtin(operator.getitem, Plain, types.SliceType)
@lower_builtin(operator.getitem, Plain, types.BaseTuple)
def _get(context, builder, signature, args):
    """An entry of an array, or a part of it."""
    kind, index_type = signature.args
    array = make_array(kind)(context, builder, args[0])
    place, shape, strides = _part(context, builder, kind, array, _given(builder, index_type, args[1]))
    if not isinstance(signature.return_type, types.Buffer):
        return load_item(context, builder, kind, place)
    part = make_array(signature.return_type)(context, builder)
    populate_array(part, place, shape, strides, array.itemsize, array.meminfo, array.parent)
    return part._getvalue()


@lower_builtin(operator.setitem, Plain, types.Any, types.Any)
def _set(context, builder, signature, args):
    """Put a number into an entry of an array, or as Numba does numbers into a part of it."""
    kind, index_type, value_type = signature.args
    indices = _given(builder, index_type, args[1])
    if any(isinstance(one, types.SliceType) for one, _ in indices) or len(indices) < kind.ndim:
        return fancy_setslice(context, builder, signature, args, *zip(*indices))
    place, _, _ = _part(context, builder, kind, make_array(kind)(context, builder, args[0]), indices)
    return store_item(context, builder, kind, context.cast(builder, args[2], value_type, kind.dtype), place)
