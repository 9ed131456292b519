"""Fixed sinc band-pass filters on the waveform, and the envelope map that AASIST starts from.

Ravanelli and Bengio, "Speaker recognition from raw waveform with SincNet", SLT 2018;
fixed and mel-spaced as in Tak et al., "End-to-end anti-spoofing with RawNet2", ICASSP 2021.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.features._filters import mel_corners
from glottis.models.parts.precision import at_least_float32, no_autocast


def sinc_filters(num_filters: int, kernel_size: int, sample_rate: int) -> Tensor:
    """Hamming-windowed ideal band-passes, (num_filters, kernel_size) float32.

    The bands lie side by side between 0 and half the rate, their edges equally spaced in mel
    (2595 log10(1 + f / 700)).  kernel_size is odd; every filter is symmetric.
    """
    edges = mel_corners(num_filters - 1, 0.0, sample_rate / 2, "htk")  # num_filters + 1 of them
    taps = np.arange(kernel_size) - kernel_size // 2
    low_pass = 2 * edges[:, None] / sample_rate
    low_pass = low_pass * np.sinc(low_pass * taps)  # ideal low-pass at every edge
    filters = (low_pass[1:] - low_pass[:-1]) * np.hamming(kernel_size)
    return torch.from_numpy(filters.astype(np.float32))


class SincEnvelope(nn.Module):
    """(B, S) wave -> (B, 1, num_filters // 3, (S - kernel_size + 1) // 3): a map of band envelopes.

    It equals max_pool2d(|conv(wave)|, 3): the largest magnitude of 3 neighbouring filters at 3
    neighbouring samples.  The three samples are computed as one strided convolution with three
    shifted copies of each filter, so that the maximum runs over whole rows; filters that no pool
    covers are left out.  Nothing here is trained: the filters are a buffer outside the state
    dict, no graph is recorded (unless the wave itself asks for a gradient), and it is float32
    under autocast, because bfloat16 would add noise 50 dB below the signal.
    """

    kernels: Tensor

    def __init__(self, num_filters: int, kernel_size: int, sample_rate: int) -> None:
        super().__init__()
        self.num_filters = num_filters
        self.num_rows = num_filters // 3
        filters = sinc_filters(num_filters, kernel_size, sample_rate)[: 3 * self.num_rows]
        shifted = [functional.pad(filters, (shift, 2 - shift)) for shift in range(3)]
        self.register_buffer("kernels", torch.stack(shifted), persistent=False)  # (3, 3 rows, K+2)

    def forward(self, wave: Tensor, filter_mask: Tensor | None = None) -> Tensor:
        """filter_mask: (num_filters,), 0 for filters to silence, one mask for the whole batch."""
        with no_autocast(wave):
            wave = at_least_float32(wave)
            kernels = self.kernels
            if filter_mask is not None:
                kernels = kernels * filter_mask[: 3 * self.num_rows, None].to(kernels)
            bands = functional.conv1d(wave[:, None], kernels.flatten(0, 1)[:, None], stride=3)
            bands = bands.abs().unflatten(1, (3, self.num_rows, 3))  # (B, shift, row, filter, T)
            rows = torch.maximum(torch.maximum(bands[:, 0], bands[:, 1]), bands[:, 2])
            rows = torch.maximum(torch.maximum(rows[:, :, 0], rows[:, :, 1]), rows[:, :, 2])
            return rows[:, None]
