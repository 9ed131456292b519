"""Guards that read the numbers of a run and say what they mean; each speaks once per phase.

The codes are those of the catalogue of mistakes (H4, H5, H7, H8, H9, O8, O14, F5, F8).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping

import numpy as np

from glottis.train.guards import Guard, Verdict, Watch
from glottis.train.shares import PREFIX

log = logging.getLogger(__name__)

GRADIENT_STEPS = 500  # over which the median of the gradient norm is taken
GRADIENT_FACTOR = 5.0
MEMORY_STEPS = 200
MEMORY_SLOPE = 1.0  # MiB per step
EVALUATIONS = 4  # in a row, after the first two, whose growth is that of caches
EVALUATION_GROWTH = 16.0  # MiB each
EVALUATION_SECONDS = 10.0  # shorter ones cost nobody anything
WORSE_IN_A_ROW = 3
SHARES = 0.01, 0.95  # below the first a term does nothing, above the second all the others
SHARES_SEEN = 3  # measurements that are averaged before anything is said


class Watcher(Guard):
    """Base: warns once for each of its reasons."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, reason: str, text: str, *values: object) -> None:
        """Warn, unless this reason was given before."""
        if reason not in self._told:
            self._told.add(reason)
            log.warning(text, *values)


class GradientWatcher(Watcher):
    """Gradient norms before clipping: jumps, a trend, and clipping most of the time (rule H4)."""

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self.epoch = steps_per_epoch
        self._lines: deque[tuple[int, float]] = deque()
        self._clipped: deque[tuple[int, float]] = deque()

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        norm = values.get("grad_norm")
        if norm is None or not np.isfinite(norm):
            return
        recent = [value for at, value in self._lines if at > step - GRADIENT_STEPS]
        if len(recent) >= 10 and norm > GRADIENT_FACTOR * float(np.median(recent)):
            self.tell(
                "jump",
                "[H4] the gradient norm is %.3g at step %d, %.0f times its median over the last %d "
                "steps: this comes before a NaN. Lower the rate, or look at the clips there",
                *(norm, step, norm / float(np.median(recent)), GRADIENT_STEPS),
            )
        self._lines.append((step, norm))
        self._clipped.append((step, values.get("clipped", 0.0)))
        while self._lines[0][0] <= step - max(2 * self.epoch, GRADIENT_STEPS):
            self._lines.popleft()
            self._clipped.popleft()
        self._trend(step)

    def _trend(self, step: int) -> None:
        now = [v for at, v in self._lines if at > step - self.epoch]
        before = [v for at, v in self._lines if step - 2 * self.epoch < at <= step - self.epoch]
        if len(now) >= 5 and len(before) >= 5 and np.median(now) > 2 * np.median(before):
            self.tell(
                "trend",
                "[H4] the gradient norm doubled within an epoch (%.3g to %.3g, step %d): training "
                "is becoming unstable. Lower the rate",
                *(np.median(before), np.median(now), step),
            )
        shares = [v for at, v in self._clipped if at > step - self.epoch]
        if len(shares) >= 10 and np.mean(shares) > 0.5:
            self.tell(
                "clipped",
                "[H4] %.0f %% of the gradients of the last epoch were clipped (step %d): clipping "
                "sets the length of the steps, not the rate. Raise train.clip_norm, or lower the "
                "rate",
                *(100 * np.mean(shares), step),
            )


class ScaleWatcher(Watcher):
    """The loss scale of fp16: skipped steps and a scale below 1 (rule H5)."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = self._skipped = 0.0
        self._last = 0

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        self._steps += step - self._last
        self._last = step
        self._skipped += values.get("skipped_steps", 0.0)
        scale = values.get("loss_scale", 1.0)
        churn = self._steps >= 500 and self._skipped > 0.01 * self._steps
        if scale < 1 or churn:
            self.tell(
                "scale",
                "[H5] the loss scale is %g and %.0f of %.0f steps were skipped (step %d): fp16 has "
                "too little range here. Use train.precision=bf16 or fp32",
                *(scale, self._skipped, self._steps, step),
            )


class EmbeddingWatcher(Watcher):
    """Embeddings: all alike (rule O8), or much longer or shorter than at the start (rule H9)."""

    def __init__(self) -> None:
        super().__init__()
        self._first: float | None = None

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        cosine, norm = values.get("embedding_cosine"), values.get("embedding_norm")
        if cosine is not None and cosine > 0.95 and step >= 100:
            self.tell(
                "collapse",
                "[O8] the embeddings of a batch have a mean cosine of %.3f (step %d): they are "
                "nearly all alike. Lower the margin or the rate",
                *(cosine, step),
            )
        if norm is None or norm <= 0:
            return
        self._first = norm if self._first is None else self._first
        drift = max(norm / self._first, self._first / norm)
        if drift > 10:
            self.tell(
                "norm",
                "[H9] the embeddings are %.0f times %s than at the start of the phase (norm %.3g, "
                "step %d): the rate is too high, or weight decay too strong",
                *(drift, "longer" if norm > self._first else "shorter", norm, step),
            )


class ShareWatcher(Watcher):
    """Terms of the loss that make up nearly all or nearly nothing of the gradient (rule O14)."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: deque[dict[str, float]] = deque(maxlen=SHARES_SEEN)

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        found = {n.removeprefix(PREFIX): v for n, v in values.items() if n.startswith(PREFIX)}
        if not found:
            return
        self._seen.append(found)
        if len(self._seen) < SHARES_SEEN:
            return
        means = {n: float(np.mean([one.get(n, 0.0) for one in self._seen])) for n in found}
        least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        if means[least] < SHARES[0] or means[most] > SHARES[1]:
            self.tell(
                "share",
                "[O14] '%s' makes up %.2g %% of the gradient and '%s' %.2g %% (step %d): the "
                "smaller one is computed and does next to nothing. Change its weight ('loss' is "
                "the loss of the head, whose weight is 1)",
                *(least, 100 * means[least], most, 100 * means[most], step),
            )


class SelectionWatcher(Watcher):
    """The development EER against the training loss (rules H7, H8)."""

    def __init__(self) -> None:
        super().__init__()
        self._loss = float("nan")
        self._history: deque[tuple[float, float]] = deque(maxlen=4)  # (loss, EER)

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        self._loss = values.get("loss", self._loss)

    def after_eval(self, step: int, values: Mapping[str, float]) -> Verdict | None:
        eer, low, high = (values.get(f"dev/{key}") for key in ("eer", "eer_low", "eer_high"))
        if eer is None:
            return None
        if values.get("dev/worse_in_a_row", 0) >= WORSE_IN_A_ROW:
            self.tell(
                "worse",
                "[H8] %d evaluations in a row are worse than the best beyond doubt (now %.2f "
                "points, step %d). A guard in the recipe takes the best weights back",
                *(WORSE_IN_A_ROW, 100 * values["dev/minus_best"], step),
            )
        if low is not None and high is not None:
            self._history.append((self._loss, eer))
            loss, first = self._history[0]
            fell = self._loss < 0.7 * loss
            rose = eer - first > high - low  # two half widths
            if len(self._history) == self._history.maxlen and fell and rose:
                self.tell(
                    "specialised",
                    "[H7] over three evaluations the training loss fell from %.3f to %.3f and the "
                    "development EER rose from %.2f to %.2f %% (step %d): the model learns the "
                    "training speakers by heart. Stop, or lower the rate of the network",
                    *(loss, self._loss, 100 * first, 100 * eer, step),
                )
        return None


class ResourceWatcher(Watcher):
    """Memory that grows (rule F5), epochs that become slower, evaluations that take long (F8)."""

    def __init__(self, steps_per_epoch: int, warm_up: int = 100) -> None:
        super().__init__()
        self.epoch, self.warm_up = steps_per_epoch, warm_up
        self._memory: deque[tuple[int, float]] = deque()
        self._speed: list[tuple[int, float]] = []
        self._begin: int | None = None
        self._evaluated = False  # since the last line
        self._after: list[float] = []  # memory at the first line after each evaluation

    def before_run(self, watch: Watch) -> None:
        self._begin = None

    def after_step(self, step: int, values: Mapping[str, float]) -> None:
        self._begin = step if self._begin is None else self._begin
        self._kept(step, values)
        if step - self._begin < self.warm_up:
            return
        for name in ("memory/process_mb", "memory/gpu_mb"):
            if name in values:
                self._grows(step, values[name])
                break
        if "clips_per_s" in values:
            self._speed.append((step, values["clips_per_s"]))
            self._drifts(step)

    def _kept(self, step: int, values: Mapping[str, float]) -> None:
        names = ("memory/process_mb", "memory/gpu_mb")
        if not self._evaluated or not any(name in values for name in names):
            return
        self._evaluated = False
        self._after.append(sum(values.get(name, 0.0) for name in names))
        grown = np.diff(self._after[2:])[-EVALUATIONS:]
        if len(grown) == EVALUATIONS and grown.min() > EVALUATION_GROWTH:
            self.tell(
                "evaluations",
                "[F5] memory grows by %.0f MiB with every evaluation (%.0f MiB at step %d): "
                "something keeps the outputs of the network, or the graph behind them",
                *(grown.mean(), self._after[-1], step),
            )

    def _grows(self, step: int, megabytes: float) -> None:
        self._memory.append((step, megabytes))
        while self._memory[-1][0] - self._memory[0][0] > MEMORY_STEPS:
            self._memory.popleft()
        steps, sizes = np.array(self._memory, np.float64).T
        if len(steps) < 5 or steps[-1] - steps[0] < 0.8 * MEMORY_STEPS:
            return
        slope = float(np.polyfit(steps, sizes, 1)[0])
        if slope > MEMORY_SLOPE:
            self.tell(
                "memory",
                "[F5] memory grows by %.1f MiB per step (%.0f MiB at step %d): something keeps "
                "tensors, such as losses that were never detached",
                *(slope, megabytes, step),
            )

    def _drifts(self, step: int) -> None:
        first = [v for at, v in self._speed if at <= self._speed[0][0] + self.epoch]
        now = [v for at, v in self._speed if at > step - self.epoch]
        apart = step - self._speed[0][0] >= 2 * self.epoch
        if apart and len(now) >= 3 and np.median(now) < 0.75 * np.median(first):
            self.tell(
                "speed",
                "[F8] the last epoch made %.0f clips/s, the first %.0f (step %d): something on "
                "this machine takes the time (other jobs, a warm processor, a slow disk)",
                *(np.median(now), np.median(first), step),
            )

    def after_eval(self, step: int, values: Mapping[str, float]) -> Verdict | None:
        self._evaluated = True
        share = values.get("dev/share_of_time", 0.0)
        if share > 0.3 and values.get("dev/seconds", 0.0) > EVALUATION_SECONDS:
            self.tell(
                "evaluation",
                "[F8] evaluations take %.0f %% of the time (step %d): evaluate more rarely "
                "(evaluate.every_epochs), or on a shorter list",
                *(100 * share, step),
            )
        return None
