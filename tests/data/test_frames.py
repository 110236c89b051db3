from pathlib import Path

import numpy as np
import pytest

from avseg.data.avsbench import avsbench, distant_frames, frame_times, video_frames
from avseg.data.frames import Frame

S4 = video_frames(avsbench("ROOT", "s4"), "-a_36", "train", "dog_barking")
MS3 = video_frames(avsbench("ROOT", "ms3"), "xv7eM6-UmkY_36", "val")


def test_frame_k_is_the_sixteenth_sixteenth_of_its_second() -> None:
    assert frame_times().tolist() == [frame.time for frame in S4] == [0.9375, 1.9375, 2.9375, 3.9375, 4.9375]
    assert np.array_equal(frame_times(2), [0.9375, 1.9375])


def test_labelled_frames() -> None:
    def labelled(subset: str, split: str) -> list[int]:
        data = avsbench("ROOT", subset)  # type: ignore[arg-type]
        return [frame.k for frame in video_frames(data, "a", split, "dog_barking") if frame.labelled]

    assert labelled("s4", "train") == [1]
    assert labelled("s4", "val") == labelled("ms3", "train") == [1, 2, 3, 4, 5]


def test_s4_paths_are_the_published_ones() -> None:
    data = Path("ROOT/Single-source/s4_data")
    assert S4[0].data.index == Path("ROOT/Single-source/s4_meta_data.csv")
    assert S4[0].raw == data / "raw_videos/train/dog_barking/-a_36.mp4"
    assert S4[4].image == data / "visual_frames/train/dog_barking/-a_36/-a_36_5.png"
    assert S4[4].path("wav") == data / "audio_wav/train/dog_barking/-a_36.wav"
    assert S4[4].log_mel == data / "audio_log_mel/train/dog_barking/-a_36.pkl"
    assert S4[0].mask == data / "gt_masks/train/dog_barking/-a_36/-a_36_1.png"
    assert S4[1].hidden_mask == data.parent / "hidden_masks/train/dog_barking/-a_36/-a_36_2.png"
    assert S4[0].flow() == data / "flow/train/dog_barking/-a_36/-a_36_1.png"
    assert S4[0].flow("dis") == data / "flow_dis/train/dog_barking/-a_36/-a_36_1.png"
    assert S4[0].data.folder_of("flow", "dis") == data / "flow_dis"
    assert S4[0].data.folder_of("image") == data / "visual_frames"


def test_ms3_paths_are_the_published_ones() -> None:
    data, name = Path("ROOT/Multi-sources/ms3_data"), MS3[0].video
    assert MS3[0].data.index == Path("ROOT/Multi-sources/ms3_meta_data.csv")
    assert MS3[0].raw == data / f"raw_videos/{name}.mp4"
    assert MS3[1].image == data / f"visual_frames/{name}/{name}.mp4_2.png"
    assert MS3[0].path("wav") == data / f"audio_wav/val/{name}.wav"
    assert MS3[0].log_mel == data / f"audio_log_mel/val/{name}.pkl"
    assert MS3[1].mask == data / f"gt_masks/val/{name}/{name}_2.png"
    assert MS3[1].flow() == data / f"flow/{name}/{name}.mp4_2.png"


@pytest.mark.parametrize("place", ["", "Single-source", "Single-source/s4_data"])
def test_published_flow_is_found_where_people_put_it(tmp_path: Path, place: str) -> None:
    tree = tmp_path / place / "S4_flows"
    tree.mkdir(parents=True)
    x, y = video_frames(avsbench(tmp_path, "s4"), "-a_36", "train", "dog_barking")[2].published_flow
    assert x == tree / "flows_x/train/dog_barking/-a_36/-a_36_3.png"
    assert y == tree / "flows_y/train/dog_barking/-a_36/-a_36_3.png"


def test_published_flow_of_ms3_and_of_distant_frames() -> None:
    x, _ = MS3[0].published_flow
    assert x == Path(f"ROOT/MS3_flows/flows_x/{MS3[0].video}/{MS3[0].video}.mp4_1.png")
    frame = Frame(distant_frames("ROOT/MS3_Extend"), "12", source="VGGSound/a.mp4")
    assert frame.image == Path("ROOT/MS3_Extend/images/12.png")
    assert frame.published_flow[1] == Path("ROOT/MS3_Extend/flows_y/12/12.mp4_middle.png")
    assert frame.log_mel == Path("ROOT/MS3_Extend/audios_log_mel/12.pkl")
    assert frame.raw == Path("ROOT/VGGSound/a.mp4")


def test_braces_in_a_name_are_no_fields() -> None:
    frame = video_frames(avsbench("ROOT", "ms3"), "{k}", "val")[1]
    assert frame.mask == Path("ROOT/Multi-sources/ms3_data/gt_masks/val/{k}/{k}_2.png")


def test_an_unknown_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="s4 or ms3"):
        avsbench("ROOT", "v2")  # type: ignore[arg-type]
