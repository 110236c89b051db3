import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import read_videos

from avseg.data.avsbench import avsbench, distant_folder, distant_frames, read_frames
from avseg.data.flow_trees import export_published_flow, import_published_flow
from avseg.errors import AvsegError
from avseg.media.flow import read_flow_png, read_published


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_flow_goes_to_the_published_form_and_back(request: pytest.FixtureRequest, tmp_path: Path, subset: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(request.getfixturevalue(subset), root)
    avsbench(root, subset)
    videos = read_videos(root, subset)
    ours = [video[k - 1].flow() for video in videos for k in range(1, 6)]
    published = [video[k - 1].published_flow for video in videos for k in range(1, 6)]
    if subset == "ms3":
        frames = read_frames(distant_frames(distant_folder(root)))
        ours += [frame.flow() for frame in frames]
        published += [frame.published_flow for frame in frames]
    before = [read_flow_png(path) for path in ours]

    assert export_published_flow(root, subset, bound=8.0) == len(ours)
    values = read_published(*published[0])
    assert values.dtype == np.uint8
    assert np.array_equal(values, np.clip(np.rint(255 * (before[0].astype(float) + 8) / 16), 0, 255))

    ours[0].unlink()
    assert import_published_flow(root, subset, bound=8.0) == 1, "flow that is there is kept"
    assert import_published_flow(root, subset, bound=8.0, overwrite=True) == len(ours)
    for path, flow in zip(ours, before, strict=True):
        assert np.abs(read_flow_png(path) - np.clip(flow, -8, 8)).max() <= 8 / 255 + 1 / 64


def test_nothing_to_import_or_export_is_said(s4: Path, tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match="S4_flows"):
        import_published_flow(s4, "s4")
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    shutil.rmtree(root / "Single-source/s4_data" / "flow")
    with pytest.raises(AvsegError, match="avseg data prepare"):
        export_published_flow(root, "s4")
