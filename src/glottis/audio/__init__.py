"""Files to samples that know their rate; the packed store; what to do with broken files."""

from glottis.audio.cache import ClipCache
from glottis.audio.decoding import decode, load, probe
from glottis.audio.health import require_sound
from glottis.audio.packestimate import PackEstimate, PackItem, estimate
from glottis.audio.packing import PackProgress, PackReport, pack
from glottis.audio.pcm import to_float, to_int16
from glottis.audio.quarantine import Broken, Quarantine
from glottis.audio.resampling import resample
from glottis.audio.store import PackedStore
from glottis.audio.types import Audio, AudioInfo, warning_code

__all__ = [
    "Audio",
    "AudioInfo",
    "Broken",
    "ClipCache",
    "PackEstimate",
    "PackItem",
    "PackProgress",
    "PackReport",
    "PackedStore",
    "Quarantine",
    "decode",
    "estimate",
    "load",
    "pack",
    "probe",
    "require_sound",
    "resample",
    "to_float",
    "to_int16",
    "warning_code",
]
