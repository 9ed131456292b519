"""Scores and what they mean: embeddings, cosine, error rates with intervals, score files."""

from glottis.score.answer import detect_files, embed_files, resolve_checkpoint, verify_files
from glottis.score.calibration import Calibration, calibration_of, fit_calibration
from glottis.score.compare import Comparison, compare
from glottis.score.cosine import cosine_scores, score_pairs, score_trials
from glottis.score.detection_cost import (
    ASVSPOOF5,
    Cost,
    CostModel,
    act_dcf,
    cllr,
    min_cllr,
    min_dcf,
)
from glottis.score.eer import EER, eer
from glottis.score.embed import Extraction, detect_clips, embed_clips, output_clips
from glottis.score.embeddings import Embeddings
from glottis.score.evaluate import (
    evaluate_sasv,
    evaluate_speaker,
    evaluate_spoof,
    trial_columns,
)
from glottis.score.from_files import ScoreReport, metrics_from_files
from glottis.score.fused_files import FusedScores, fuse_files
from glottis.score.fusion import Fusion, fit_fusion, mean_fusion
from glottis.score.intervals import Measured, measure
from glottis.score.key_files import read_speakers
from glottis.score.layouts import ScoreTable, read_scores
from glottis.score.parts import Resampled
from glottis.score.rates import Rates, rates
from glottis.score.results import Cell, Result, SasvResult, SpeakerResult, SpoofResult
from glottis.score.score_files import write_cm_scores, write_trial_scores
from glottis.score.tandem import (
    CHALLENGE,
    LIBRARY_DEFAULT,
    AdcfCosts,
    AsvRates,
    TandemCosts,
    a_dcf,
    asv_rates,
    eer_per_attack,
    min_tdcf,
    sasv_eer,
)
from glottis.score.voices import Voices, clip_voices, sasv_voices, trial_voices

__all__ = [
    "ASVSPOOF5",
    "CHALLENGE",
    "EER",
    "LIBRARY_DEFAULT",
    "AdcfCosts",
    "AsvRates",
    "Calibration",
    "Cell",
    "Comparison",
    "Cost",
    "CostModel",
    "Embeddings",
    "Extraction",
    "FusedScores",
    "Fusion",
    "Measured",
    "Rates",
    "Resampled",
    "Result",
    "SasvResult",
    "ScoreReport",
    "ScoreTable",
    "SpeakerResult",
    "SpoofResult",
    "TandemCosts",
    "Voices",
    "a_dcf",
    "act_dcf",
    "asv_rates",
    "calibration_of",
    "clip_voices",
    "cllr",
    "compare",
    "cosine_scores",
    "detect_clips",
    "detect_files",
    "eer",
    "eer_per_attack",
    "embed_clips",
    "embed_files",
    "evaluate_sasv",
    "evaluate_speaker",
    "evaluate_spoof",
    "fit_calibration",
    "fit_fusion",
    "fuse_files",
    "mean_fusion",
    "measure",
    "metrics_from_files",
    "min_cllr",
    "min_dcf",
    "min_tdcf",
    "output_clips",
    "rates",
    "read_scores",
    "read_speakers",
    "resolve_checkpoint",
    "sasv_eer",
    "sasv_voices",
    "score_pairs",
    "score_trials",
    "trial_columns",
    "trial_voices",
    "verify_files",
    "write_cm_scores",
    "write_trial_scores",
]
