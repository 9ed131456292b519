"""The load of the GPU, where there is one (nvidia-ml-py, extra ``track``)."""

from __future__ import annotations

import logging
from typing import Any

import psutil
import torch

log = logging.getLogger(__name__)


class Monitor:
    """Reads memory of the process, and utilisation, memory and power of an NVIDIA GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self._nvml: Any = None
        self._handle: Any = None
        if device.type != "cuda":
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self._nvml = pynvml
        except ImportError:
            log.info("no GPU utilisation in the metrics: install nvidia-ml-py (extra 'track')")
        except Exception as error:  # the NVML library raises its own family of errors
            log.info("no GPU utilisation in the metrics: %s", error)

    def read(self) -> dict[str, float]:
        """Megabytes, percent, watts."""
        values = {"memory/process_mb": self._process.memory_info().rss / 2**20}
        if self.device.type == "cuda":
            values["memory/gpu_mb"] = torch.cuda.memory_allocated(self.device) / 2**20
            values["memory/gpu_peak_mb"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        if self._nvml is not None:
            try:
                use = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
                power = self._nvml.nvmlDeviceGetPowerUsage(self._handle)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
            except self._nvml.NVMLError:
                return values
            values["gpu/utilisation_percent"] = float(use.gpu)
            values["gpu/power_w"] = power / 1000
            values["gpu/memory_mb"] = memory.used / 2**20
        return values
