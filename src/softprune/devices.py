"""Where tensors are computed: CUDA where there is one, and what its arithmetic is good for."""

import torch


def pick_device() -> torch.device:
    """CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays: emulated on a CPU without the instructions it is 10x slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())
