from pathlib import Path

import numpy as np
import pytest

from avseg.data.avsbench import DistantFrame, DistantLayout, Layout, Video, frame_times, labelled_frames

S4 = Video("-a_36", "dog_barking", "train", "s4", 30)
MS3 = Video("xv7eM6-UmkY_36", "", "val", "ms3")


def test_frame_k_is_the_sixteenth_sixteenth_of_its_second() -> None:
    assert frame_times().tolist() == [0.9375, 1.9375, 2.9375, 3.9375, 4.9375]
    assert np.array_equal(frame_times(2), [0.9375, 1.9375])


def test_labelled_frames() -> None:
    assert labelled_frames(S4) == (1,)
    assert labelled_frames(Video("a", "dog_barking", "val", "s4")) == (1, 2, 3, 4, 5)
    assert labelled_frames(Video("a", "", "train", "ms3")) == (1, 2, 3, 4, 5)


def test_s4_paths_are_the_published_ones() -> None:
    layout = Layout("ROOT", "s4")
    data = Path("ROOT/Single-source/s4_data")
    assert layout.index == Path("ROOT/Single-source/s4_meta_data.csv")
    assert layout.raw_video(S4) == data / "raw_videos/train/dog_barking/-a_36.mp4"
    assert layout.frame(S4, 5) == data / "visual_frames/train/dog_barking/-a_36/-a_36_5.png"
    assert layout.wav(S4) == data / "audio_wav/train/dog_barking/-a_36.wav"
    assert layout.log_mel(S4) == data / "audio_log_mel/train/dog_barking/-a_36.pkl"
    assert layout.mask(S4, 1) == data / "gt_masks/train/dog_barking/-a_36/-a_36_1.png"
    assert layout.hidden_mask(S4, 2) == data.parent / "hidden_masks/train/dog_barking/-a_36/-a_36_2.png"
    assert layout.flow(S4, 1) == data / "flow/train/dog_barking/-a_36/-a_36_1.png"


def test_ms3_paths_are_the_published_ones() -> None:
    layout = Layout("ROOT", "ms3")
    data, name = Path("ROOT/Multi-sources/ms3_data"), MS3.name
    assert layout.index == Path("ROOT/Multi-sources/ms3_meta_data.csv")
    assert layout.raw_video(MS3) == data / f"raw_videos/{name}.mp4"
    assert layout.frame(MS3, 2) == data / f"visual_frames/{name}/{name}.mp4_2.png"
    assert layout.wav(MS3) == data / f"audio_wav/val/{name}.wav"
    assert layout.log_mel(MS3) == data / f"audio_log_mel/val/{name}.pkl"
    assert layout.mask(MS3, 2) == data / f"gt_masks/val/{name}/{name}_2.png"
    assert layout.flow(MS3, 2) == data / f"flow/{name}/{name}.mp4_2.png"


@pytest.mark.parametrize("place", ["", "Single-source", "Single-source/s4_data"])
def test_published_flow_is_found_where_people_put_it(tmp_path: Path, place: str) -> None:
    tree = tmp_path / place / "S4_flows"
    tree.mkdir(parents=True)
    x, y = Layout(tmp_path, "s4").published_flow(S4, 3)
    assert x == tree / "flows_x/train/dog_barking/-a_36/-a_36_3.png"
    assert y == tree / "flows_y/train/dog_barking/-a_36/-a_36_3.png"


def test_published_flow_of_ms3_and_of_distant_frames() -> None:
    x, _ = Layout("ROOT", "ms3").published_flow(MS3, 1)
    assert x == Path(f"ROOT/MS3_flows/flows_x/{MS3.name}/{MS3.name}.mp4_1.png")
    frame, layout = DistantFrame("12"), DistantLayout("ROOT/MS3_Extend")
    assert layout.image(frame) == Path("ROOT/MS3_Extend/images/12.png")
    assert layout.published_flow(frame)[1] == Path("ROOT/MS3_Extend/flows_y/12/12.mp4_middle.png")
    assert layout.log_mel(frame) == Path("ROOT/MS3_Extend/audios_log_mel/12.pkl")


def test_an_unknown_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="s4 or ms3"):
        Layout("ROOT", "v2")  # type: ignore[arg-type]
