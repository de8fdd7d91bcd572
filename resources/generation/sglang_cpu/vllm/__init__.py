"""Not vLLM: one function that SGLang imports under this name on a machine without CUDA."""

__version__ = "0"
