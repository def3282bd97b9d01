"""What a measured speed-up says: no more than its interval, and nothing that cannot be."""

from typing import Literal

from eagle.evaluation.intervals import Interval

Verdict = Literal["faster", "no difference shown", "slower", "timing fault"]


def judge_speed(
    speedup: float, interval: Interval | None, tau: float, break_even_tau: float
) -> Verdict:
    """Judge a speed-up over vanilla decoding.

    A step of speculative decoding is a verifier forward and more, so it cannot take less time than
    a vanilla step, nor can the speed-up exceed the tokens that a step yields. Where the clock says
    so, it was disturbed, and nothing can be concluded. Without an accepted token nothing can be
    faster either, whatever the clock says.

    Args:
        interval: 95%, of the speed-up; None: a single prompt, which shows no difference.
        tau: acceptance length, 1 where no drafted token was accepted.
        break_even_tau: time of a draft-and-verify step over that of a vanilla step.
    """
    if break_even_tau < 1 or speedup > tau:
        return "timing fault"
    if interval is None:
        return "no difference shown"
    low, high = interval
    if low > 1 and tau > 1:
        return "faster"
    return "slower" if high < 1 else "no difference shown"
