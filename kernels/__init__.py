"""Kernels: the machine code that runs the operations of a program, made by Numba and LLVM."""
