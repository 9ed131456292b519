"""Manifests, splits, trials and protocols: what the clips are, and what may be asked of them."""

from glottis.data.disjoint import check_disjoint, content_hashes, require_disjoint
from glottis.data.findings import Finding, raise_stops
from glottis.data.labels import (
    BONAFIDE,
    CLASSES,
    SPOOF,
    canonical_label,
    canonical_labels,
    class_index,
    class_indices,
)
from glottis.data.manifest import Factor, FileCheck, Manifest
from glottis.data.manifest_check import COLUMNS
from glottis.data.protocol_check import check_protocol, require_protocol
from glottis.data.protocols import DevelopmentProtocol, EvaluationProtocol, Protocol
from glottis.data.selection import Development, Evaluation, check_different, require_development
from glottis.data.splits import DEV_SEEN, HoldOut, hold_out_seen, split_speakers
from glottis.data.trial_build import BuildReport, TrialBuildConfig, build_trials
from glottis.data.trial_check import (
    Composition,
    Resolution,
    check_resolution,
    check_trials,
    composition,
    require_trials,
    trial_resolution,
)
from glottis.data.trials import DevelopmentTrials, EvaluationTrials, Trials

__all__ = [
    "BONAFIDE",
    "CLASSES",
    "COLUMNS",
    "DEV_SEEN",
    "SPOOF",
    "BuildReport",
    "Composition",
    "Development",
    "DevelopmentProtocol",
    "DevelopmentTrials",
    "Evaluation",
    "EvaluationProtocol",
    "EvaluationTrials",
    "Factor",
    "FileCheck",
    "Finding",
    "HoldOut",
    "Manifest",
    "Protocol",
    "Resolution",
    "TrialBuildConfig",
    "Trials",
    "build_trials",
    "canonical_label",
    "canonical_labels",
    "check_different",
    "check_disjoint",
    "check_protocol",
    "check_resolution",
    "check_trials",
    "class_index",
    "class_indices",
    "composition",
    "content_hashes",
    "hold_out_seen",
    "raise_stops",
    "require_development",
    "require_disjoint",
    "require_protocol",
    "require_trials",
    "split_speakers",
    "trial_resolution",
]
