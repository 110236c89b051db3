"""Clips with known PCM sound, and what moviepy 1.0.3 makes of them, from which the stored values come.

To make the values again, in an environment with avseg and in one with moviepy 1.0.3 and imageio-ffmpeg:

    python tests/media/moviepy_reference.py clips FOLDER     # avseg
    python tests/media/moviepy_reference.py read FOLDER      # moviepy
    python tests/media/moviepy_reference.py store FOLDER     # avseg
"""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

VALUES = Path(__file__).parents[1] / "fixtures" / "moviepy" / "log_mel.npz"
EVERY = 61  # one log-mel entry of so many is stored
CASES = {  # sample rate, channels, seconds of frames, seconds of sound
    "stereo_44100": (44_100, 2, 5.0, 5.0),
    "mono_44100": (44_100, 1, 5.0, 5.0),
    "stereo_48000": (48_000, 2, 5.0, 5.0),
    "mono_22050": (22_050, 1, 5.0, 5.0),
    "short_sound": (44_100, 2, 5.0, 4.2),
    "long": (44_100, 2, 7.0, 7.0),
}


def write_clip(path: Path, rate: int, channels: int, seconds: float, heard: float) -> None:
    """An avi of moving stripes whose sound is rising tones and noise, 16-bit PCM."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="stereo" if channels == 2 else "mono")
        for i in range(round(seconds * 25)):
            image = np.full((48, 64, 3), (np.arange(64) * 4 + 8 * i)[:, None] % 256, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        samples = _sound(rate, channels, round(heard * rate))
        for start in range(0, len(samples), 1024):
            piece = np.ascontiguousarray(samples[start : start + 1024].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(piece, "s16", "stereo" if channels == 2 else "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def _sound(rate: int, channels: int, count: int) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(rate + channels)).integers(-3000, 3000, (count, channels))
    time = np.arange(count)[:, None] / rate
    tones = 9000 * np.sin(2 * np.pi * time * (300 + (1 + np.arange(channels)) * 400 * time))
    return (noise + np.rint(tones)).astype(np.int16)


def read_with_moviepy(clip: Path, wav: Path) -> None:
    """AVSBench's own step from a video to its sound."""
    from moviepy.editor import VideoFileClip

    VideoFileClip(str(clip)).audio.write_audiofile(str(wav), fps=16000, verbose=False, logger=None)


def main(what: str, folder: Path) -> None:
    clips = {name: folder / f"{name}.avi" for name in CASES}
    if what == "store":
        from avseg.media.audio import frame_log_mel, read_wav

        waves = {name: read_wav(clip.with_suffix(".wav"))[0] for name, clip in clips.items()}
        values = {name: frame_log_mel(wave).reshape(-1)[::EVERY] for name, wave in waves.items()}
        np.savez_compressed(VALUES, **values)
        return
    for name, clip in clips.items():
        if what == "clips":
            write_clip(clip, *CASES[name])
        else:
            read_with_moviepy(clip, clip.with_suffix(".wav"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
