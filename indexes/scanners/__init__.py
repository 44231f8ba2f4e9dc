"""Scanners: find the records nearest to a query in Hamming distance within given cells. Each scanner has one file.

    protocol.py             `Scanner`, what every scanner can do, and `Nearest`, what a scan returns
    engine_names.py         the names that users give to scanners, and which scanner is chosen; imports no library
    choose.py               builds the scanner of an index, and applies the changes of the index to it
    hamming_faiss_cpu.py    "faiss": FAISS's inverted lists, on the CPU
    hamming_numba_cpu.py    "compiled": codes that numba kernels scan, on the CPU; several times faster
      lists_numba.py         adds, moves, removes and searches these codes
      scan_numba.py          Hamming distances of a query to these codes, and the nearest codes by counting
    gpu_segments.py         codes in segments, divided among GPUs: the common part of the two scanners for GPUs
    hamming_torch_gpu.py    "torch": Hamming distance as a product of matrices of signs, on GPUs
    hamming_faiss_gpu.py    "flat": FAISS's flat binary indexes, on GPUs
    gpu_features.py         distances of features on a GPU, for the ranking of a search

Two modules of `indexes` belong to the "compiled" scanner: `warmup.py` compiles or loads all kernels, and
`engine_switch.py` moves an open index from "faiss" to "compiled" when the kernels are ready.

There is one implementation of Hamming distance for each kind of array:

    numpy     scoring/equations.hamming
    numba     scan_numba.hamming; scan_numba._distances has loops of its own for codes of one and two words
    torch     hamming_torch_gpu.TorchScanner.nearest, as bits / 2 minus half a product of signs
    FAISS     inside FAISS, called by hamming_faiss_cpu and hamming_faiss_gpu

The scanners for GPUs also run on the CPU (device "cpu"), where they are tested. torch is imported by
hamming_torch_gpu.py and gpu_features.py alone; hamming_numba_cpu.py and the kernels need numba. `choose` imports each
of them only when it is needed.

To add a scanner: write one file with a class that has the attributes and methods of `protocol.Scanner`, `fused`, `add`
and `remove`; name it in `engine_names`, build it in `choose._empty`, and add it to
tests/indexes/scanners/test_scanners.py, which compares every scanner with numpy.
"""
