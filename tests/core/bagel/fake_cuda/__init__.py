"""The engine at its full size on pretended GPUs, without a GPU and without memory: what would a GPU be asked to do?

Tensors on "cuda:0" and "cuda:1" are PyTorch's FakeTensors (shape, strides, dtype, device; no storage); other tensors
are real. Each operator that a GPU would run is written down with its place, bytes and FLOPs, and so are the points at
which the host would wait for the GPU. It finds tensors on wrong devices, products of mixed dtypes, waits, and attention
that falls to a slow kernel. It can't show kernels' time, workspaces, fragmentation, or numbers.
"""
