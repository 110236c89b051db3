"""The samples are generated where they are used, hold what their titles say, and are made once."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avseg.app import samples
from avseg.app.samples import EDITION, SAMPLES, SIZE, sample_file
from avseg.media.audio import load_audio
from avseg.media.video import probe
from avseg.synthetic import load_objects, make_knobs
from avseg.synthetic.scene import hold_out, plan_scene


@pytest.mark.heavy
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_is_a_clip_with_sound_made_once_without_a_network(
    sample: samples.Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a sample asks no other machine")

    monkeypatch.setattr(socket.socket, "connect", refused)
    path = sample_file(sample, tmp_path)
    info = probe(path)
    assert (info.width, info.height) == (SIZE, SIZE)
    assert info.duration == pytest.approx(5, abs=0.1)
    assert np.abs(load_audio(path)).max() > 0.02
    before = path.stat().st_mtime_ns
    assert sample_file(sample, tmp_path) == path
    assert path.stat().st_mtime_ns == before
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == [path]


def test_titles_are_true() -> None:
    sounding = {}
    for sample in SAMPLES:
        knobs = make_knobs(EDITION, size=SIZE, **dict(sample.knobs))
        objects = load_objects(None, knobs.categories)
        scene = plan_scene(objects, hold_out(objects, knobs, sample.seed), knobs, sample.subset, "test", 0, sample.seed)
        sounding[sample.name] = np.array([thing.sounding for thing in scene.objects]).sum(0)
        assert len(scene.objects) == 2
    assert sounding["one"].tolist() == [1] * 5
    assert sounding["turns"].min() == 0  # silence
    assert len(set(sounding["turns"].tolist())) > 1


def test_where_the_cache_cannot_be_written_the_temporary_folder_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert samples.samples_folder() == tmp_path / "cache" / "avseg" / "samples"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(samples.tempfile, "tempdir", str(tmp_path))
    folder = samples.samples_folder()
    assert folder.is_dir()
    assert folder.parent == tmp_path
