"""One compiled call that several threads run at once, none of which needs the GIL to join or to leave.

A *mailbox* is a vector of integers that all threads of a process read.  Who has work puts its arguments there with
`share`, does it like everyone else, closes the mailbox and waits for those who joined; helpers `serve`: they look into the
mailbox for a while before they go to sleep, because to wake a thread takes as long as a small batch.  The work deals itself
out: it begins with each thread's own scratch memory and a counter from which pieces are claimed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npflows.backends.cpu.compiler.jit import DISABLED, inlined, kernel

# words of the mailbox, on cache lines of their own: the gate, how many look into it now, the work, and what pauses end
# with, so that the compiler keeps them
GATE, LOOKING, SERIAL, SCRATCH, ENTRY, FAILED, STATE, FRAME, SIZE = 0, 8, 16, 17, 18, 19, 24, 32, 1024
# the gate: how many have joined and not left, how many more may join, and whether somebody's work is there
ONE_MORE, CLAIMED = 1 << 20, 1 << 40
IDLE = 8
"""How much more a pause without work in the mailbox counts than one with."""
MANY = 8
"""After how much work a helper looks at how it fares."""
DONE, ERROR, BUSY = range(3)
"""The states of shared work: it is done; it met an error; or helpers still have theirs to end."""

if not DISABLED:
    from npflows.backends.cpu.compiler.calls import checked, contiguous, fetch_add, invoke, place, unowned

    _word, _bytes = ir.IntType(64), ir.IntType(8).as_pointer()
    _entry = ir.FunctionType(_word, [_bytes, _bytes, _word])

    @intrinsic
    def look(typingctx, mailbox, at):
        """A word of the mailbox as it is now."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load_atomic(place(context, builder, signature, args), "seq_cst", 8)

        return types.int64(mailbox, types.int64), codegen

    @intrinsic
    def swap(typingctx, mailbox, at, expected, value):
        """Set a word of the mailbox if it is as expected; whether it was."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = place(context, builder, signature, args)
            return builder.extract_value(builder.cmpxchg(at, args[2], args[3], "seq_cst", "seq_cst"), 1)

        return types.boolean(mailbox, types.int64, types.int64, types.int64), codegen

    @intrinsic
    def attempt(typingctx, number, arguments):
        """Call the kernel at an address; whether it met an error."""
        actual = checked(arguments)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = unowned(context, builder, actual, args[1])
            return _status(context, builder, args[0], actual, values)

        return types.int64(number, arguments), codegen

    def _status(context: Any, builder: Any, number: Any, actual: tuple, values: list) -> Any:
        return builder.zext(invoke(context, builder, number, actual, values).is_error, _word)

    @intrinsic
    def publish(typingctx, mailbox, number, arguments):
        """Put a call into the mailbox, and the address of the function that makes it with another scratch memory."""
        actual = checked(arguments)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [args[1], *unowned(context, builder, actual, args[2])]
            frame = ir.LiteralStructType([value.type for value in values])
            if context.get_abi_sizeof(frame) > 8 * (SIZE - FRAME):
                raise NotImplementedError("the arguments do not fit into the mailbox")
            data = context.make_array(signature.args[0])(context, builder, args[0]).data

            def word(i: int) -> Any:
                return builder.gep(data, [ir.Constant(_word, i)])

            there = builder.bitcast(word(FRAME), frame.as_pointer())
            for i, value in enumerate(values):
                builder.store(value, cgutils.gep_inbounds(builder, there, 0, i), align=8)
            builder.store(builder.ptrtoint(enter(context, builder.module, frame), _word), word(ENTRY))
            return context.get_dummy_value()

        def enter(context: Any, module: Any, frame: Any) -> Any:
            function = ir.Function(module, _entry, module.get_unique_name("npflows_enter"))
            function.linkage = "internal"
            builder = ir.IRBuilder(function.append_basic_block())
            given, memory, n_bytes = function.args
            there = builder.bitcast(given, frame.as_pointer())
            number, _, *values = (
                builder.load(cgutils.gep_inbounds(builder, there, 0, i), align=8) for i in range(len(frame.elements))
            )
            scratch = actual[0]
            n_reals = builder.sdiv(n_bytes, ir.Constant(_word, scratch.dtype.bitwidth // 8))
            reals = builder.bitcast(memory, context.get_data_type(scratch.dtype).as_pointer())
            array = contiguous(context, builder, scratch, reals, [n_reals])
            builder.ret(_status(context, builder, number, actual, [array, *values]))
            return function

        return types.void(mailbox, number, arguments), codegen

    @intrinsic
    def join(typingctx, mailbox, scratch):
        """Do what was put into the mailbox, with scratch memory of one's own; whether it met an error."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            box, own = (context.make_array(t)(context, builder, a) for t, a in zip(signature.args, args))
            entry, frame = (builder.gep(box.data, [ir.Constant(_word, i)]) for i in (ENTRY, FRAME))
            function = builder.inttoptr(builder.load(entry), _entry.as_pointer())
            given = [builder.bitcast(frame, _bytes), builder.bitcast(own.data, _bytes), own.nitems]
            return builder.call(function, given)

        return types.int64(mailbox, scratch), codegen

    @inlined
    def pause(state):
        """Some 200 cycles of nothing, on a state that goes from one pause to the next.  The processor's own instruction for
        it makes a virtual machine give its CPU away."""
        for _ in range(25):  # xorshift, which the compiler can't shorten
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
        return state

    @kernel
    def wait(mailbox, patience, counter):
        """Wait for those who joined and let go of the mailbox; counter[1] says DONE or ERROR then, else it stays BUSY."""
        state = patience
        for _ in range(patience):
            if look(mailbox, GATE) == CLAIMED:
                counter[1] = ERROR if look(mailbox, FAILED) else DONE
                fetch_add(mailbox, GATE, -CLAIMED)
                break
            state = pause(state)
        mailbox[STATE] = state

    @functools.cache
    def share(kind: str, dtype: np.dtype) -> Callable:
        """`_share` for one kind of kernel and dtype: older Numba mixes tuples of arrays of different types up."""
        return kernel(_share)

    def _share(mailbox, number, helpers, n_bytes, patience, arguments):
        """Call the kernel at an address and let so many helpers join; alone where others have the mailbox.

        Each needs `n_bytes` of scratch memory.  The counter is arguments[1]; its second entry says what became of the work.
        While that is BUSY the arguments must be kept, and `wait` be called until it is not.
        """
        counter = arguments[1]
        if not swap(mailbox, GATE, 0, CLAIMED):
            counter[1] = ERROR if attempt(number, arguments) else DONE
            return
        counter[1] = BUSY
        mailbox[SERIAL] += 1
        mailbox[SCRATCH], mailbox[FAILED] = n_bytes, 0
        publish(mailbox, number, arguments)
        fetch_add(mailbox, GATE, ONE_MORE * helpers)
        if attempt(number, arguments):
            fetch_add(mailbox, FAILED, 1)
        while True:  # no more may join
            gate = look(mailbox, GATE)
            if swap(mailbox, GATE, gate, CLAIMED + gate % ONE_MORE):
                break
        wait(mailbox, patience, counter)

    @kernel
    def serve(mailbox, scratch, patience):
        """Join in what is put into the mailbox until nothing comes for a while; time in which somebody works counts less.

        Returns 0, or -1 after it joined MANY times, or how many bytes of scratch memory the work needs that lies there, if
        that is more than there are.
        """
        fetch_add(mailbox, LOOKING, 1)
        answer, last, i, joined, state = 0, 0, 0, 0, patience
        while i < IDLE * patience and answer == 0:
            gate = look(mailbox, GATE)
            if gate < CLAIMED + ONE_MORE or look(mailbox, SERIAL) == last:
                state = pause(state)
                i += 1 if gate else IDLE
            elif swap(mailbox, GATE, gate, gate - ONE_MORE + 1):
                last = look(mailbox, SERIAL)
                if look(mailbox, SCRATCH) > scratch.size:
                    answer = look(mailbox, SCRATCH)
                elif join(mailbox, scratch):
                    fetch_add(mailbox, FAILED, 1)
                fetch_add(mailbox, GATE, -1)
                i, joined = 0, joined + 1
                if answer == 0 and joined == MANY:
                    answer = -1
        fetch_add(mailbox, LOOKING, -1)
        mailbox[STATE] = state
        return answer

    @kernel
    def pauses(n):
        """So many pauses, to find out how long one is."""
        state = n
        for _ in range(n):
            state = pause(state)
        return state
