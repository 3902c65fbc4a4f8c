"""Log-mel and cepstral frames against independent code: transformers' and scipy's."""

from __future__ import annotations

import numpy as np
import pytest

from thrifty.data.sounds.spectrum import (
    FLOOR,
    LOWEST_HERTZ,
    features_of,
    features_of_all,
    frame_count,
    hertz_of,
    log_mel,
    mel_filters,
    mel_of,
    mfcc,
)
from thrifty.spec import Sound

SOUNDS = {
    "8 kHz": Sound(rate=8000, bands=40), "16 kHz": Sound(rate=16000, bands=80), "22 kHz": Sound(rate=22050, bands=64),
}  # fmt: skip


def noise(sound: Sound, seconds: float = 0.5) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(int(seconds * sound.rate)) / 10
    return samples.astype(np.float32)


def test_mel_has_the_published_values() -> None:
    # Stevens, Volkmann and Newman's anchor: 1000 mel at 1000 Hz; the rest by the HTK formula, worked by hand
    table = {0.0: 0.0, 700.0: 781.17, 1000.0: 999.99, 4000.0: 2146.06, 8000.0: 2840.02}
    assert mel_of(np.array(list(table))) == pytest.approx(list(table.values()), abs=0.01)
    assert hertz_of(mel_of(np.linspace(0, 8000, 50))) == pytest.approx(np.linspace(0, 8000, 50), abs=1e-6)


@pytest.mark.parametrize("name", SOUNDS)
def test_every_filter_hears_something(name: str) -> None:
    filters = mel_filters(SOUNDS[name])
    assert filters.min() == 0
    assert (filters.max(0) > 0.2).all()
    assert filters.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUNDS)
def test_frames_are_those_of_transformers(name: str) -> None:
    audio = pytest.importorskip("transformers.audio_utils")
    sound = SOUNDS[name]
    filters = audio.mel_filter_bank(
        sound.bins, sound.bands, LOWEST_HERTZ, sound.rate / 2, sound.rate, norm=None, mel_scale="htk"
    )
    assert np.abs(mel_filters(sound) - filters).max() < 1e-6
    samples = noise(sound)
    wanted = audio.spectrogram(
        samples, audio.window_function(sound.window, "hann"), sound.window, sound.hop, sound.transform, power=2.0,
        center=True, pad_mode="constant", mel_filters=filters, mel_floor=FLOOR, log_mel="log",
    ).T  # fmt: skip
    ours = log_mel(samples, sound)
    assert ours.shape == (1 + len(samples) // sound.hop, sound.bands)
    # theirs centres by half of the transform's window, with no frame for the very last samples at some lengths
    frames = min(len(ours), len(wanted)) - 1
    assert np.abs(ours[:frames] - wanted[:frames]).max() < 1e-3


@pytest.mark.slow
def test_cepstra_are_those_of_scipy() -> None:
    fft = pytest.importorskip("scipy.fft")
    sound = SOUNDS["8 kHz"]
    frames = log_mel(noise(sound), sound)
    wanted = fft.dct(frames, type=2, norm="ortho", axis=1)[:, :13]
    assert np.abs(mfcc(frames, 13) - wanted).max() < 1e-4
    asked = sound.model_copy(update={"features": "mfcc"})
    assert features_of(noise(sound), asked).shape == (len(frames), 13)


def test_a_tone_lies_in_its_band() -> None:
    sound = SOUNDS["8 kHz"]
    frames = log_mel(np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32), sound)
    middle = hertz_of(np.linspace(mel_of(LOWEST_HERTZ), mel_of(4000), 42))[1:-1]
    assert (frames[10:-10].argmax(1) == np.abs(middle - 1000).argmin()).all()


@pytest.mark.parametrize("length", [1, 79, 80, 200, 8000])
def test_any_length_has_a_frame_for_each_hop(length: int) -> None:
    sound = SOUNDS["8 kHz"]
    frames = log_mel(np.zeros(length, np.float32), sound)
    assert frames.shape == (1 + length // sound.hop, 40)
    assert frames == pytest.approx(np.log(FLOOR))


def test_recordings_together_have_the_frames_that_each_has() -> None:
    generator = np.random.default_rng(1)
    for sound in SOUNDS.values():
        lengths = (1, sound.hop - 1, sound.hop, sound.window, 3333, 90_000)
        several = [generator.standard_normal(length).astype(np.float32) for length in lengths]
        together = features_of_all(several, sound)
        for samples, frames in zip(several, together, strict=True):
            assert len(frames) == frame_count(len(samples), sound)
            assert np.abs(frames - log_mel(samples, sound)).max() < 1e-4


def test_no_recordings_have_no_frames() -> None:
    assert features_of_all([], SOUNDS["8 kHz"]) == []
