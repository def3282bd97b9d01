"""What training and decoding reach on a GPU: one command, `python -m benchmarks.gpu`."""
