"""Augmentation: parameters drawn in the worker, applied to the batch on the device."""

from __future__ import annotations

from glottis.augment._bank import Bank, Sound
from glottis.augment._base import Augmentation, AugmentationConfig, AugmentContext, Range
from glottis.augment._registry import AUGMENTATIONS, register_augmentation
from glottis.augment._sources import load_bank
from glottis.augment.augmenter import Augmenter, Params, build_augmenter
from glottis.augment.simulate import NOISE_KINDS, simulate_noise, simulate_room

__all__ = [
    "AUGMENTATIONS",
    "NOISE_KINDS",
    "AugmentContext",
    "Augmentation",
    "AugmentationConfig",
    "Augmenter",
    "Bank",
    "Params",
    "Range",
    "Sound",
    "build_augmenter",
    "load_bank",
    "register_augmentation",
    "simulate_noise",
    "simulate_room",
]
