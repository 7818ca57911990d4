"""Flows on an NVIDIA GPU: kernels compiled by numba.cuda, and launched by cuda.core.

A thread is a block of one lane.  What it runs is the text of the CPU's kernels, compiled a second time for a block of one
lane (texts.py), so that no formula is written twice; blocks (rows, samples) lie in the GPU's memory as they do in a CPU's,
so that neighboring threads read neighboring numbers.  Written here is what the CPU writes for its vector registers,
products and convolutions (products.py), and what lies between samples: sums over them, of gradients (sums.py).  Each number
of a sum has one thread that adds in one order, and no operation is atomic: the same bits each time.
"""
