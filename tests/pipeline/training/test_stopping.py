"""The first signal is a wish to stop after the step; what was there before comes back."""

import signal

from pipeline.training.stopping import stop_after_step


def test_the_first_signal_is_a_wish_and_the_second_is_as_before():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("second"))
    try:
        with stop_after_step() as wish:
            assert not wish["asked"]
            signal.raise_signal(signal.SIGTERM)
            assert wish["asked"]
            signal.raise_signal(signal.SIGTERM)
            assert seen == ["second"]
        assert signal.getsignal(signal.SIGTERM)(0, None) is None
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
