"""Speed and accuracy, side by side with what one would pick instead. `make bench` writes docs/benchmarks.md."""
