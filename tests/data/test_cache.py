"""The store gives what the files give, never what they gave; and it survives kills, rivals and full disks."""

import builtins
import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_avsbench, read_videos

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig
from avseg.data import cache as cache_module
from avseg.data.avsbench import avsbench
from avseg.data.cache import CacheWarning, Shard, open_cache
from avseg.data.clip import Batch
from avseg.data.flow_trees import export_published_flow
from avseg.data.lists import write_label_subset
from avseg.data.loader import TrainingData, training_data, validation_clips
from avseg.data.log_mel import load_log_mel, save_log_mel
from avseg.data.prepare import prepare
from avseg.errors import AvsegError
from avseg.media.flow import read_flow_png, write_flow_png
from avseg.media.images import read_image, read_mask, write_image, write_mask


def run_data(root: Path, subset: str = "s4", length: int = 1, distant: bool = True, **inputs) -> TrainingData:
    """Batches of 2, three epochs, one of them burn-in, with flow; images of 32 pixels."""
    config = Config(
        data=DataConfig(root=str(root), subset=subset, workers=0),  # type: ignore[arg-type]
        model=ModelConfig(neighbouring_frames=True, frames_per_clip=length, inputs=InputConfig(image_size=32)),
        ufe=UFEConfig(distant_frames=distant, burn_in=1),
        optim=OptimConfig(batch_size=2, epochs=3),
        run=RunConfig(seed=7),
    )
    for name, value in inputs.items():
        section = config.data if name in ("flow", "labelled") else config.model.inputs
        setattr(section if name != "neighbouring_frames" else config.model, name, value)
    return training_data(config)


def stored(data: TrainingData, where: str = "auto", **options) -> TrainingData:
    return data.with_cache(open_cache(data.all_frames, data.config.model.inputs, data.flow, where, **options))


def assert_same(ours: Batch | None, theirs: Batch | None) -> None:
    """Bit for bit, in every field."""
    if ours is None or theirs is None:
        assert ours is theirs
        return
    assert type(ours) is type(theirs)
    for field in dataclasses.fields(ours):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(mine, torch.Tensor):
            assert mine.dtype == other.dtype, field.name
            assert torch.equal(mine, other), field.name
        else:
            assert mine == other, field.name


def assert_equals_files(data: TrainingData, where: str = "auto") -> None:
    """Every step and every validation video."""
    read = stored(data, where)
    assert read.cache
    for ours, theirs in zip(read.loader(), data.loader(), strict=True):
        assert ours.step == theirs.step
        assert_same(ours.labelled, theirs.labelled)
        assert_same(ours.distant, theirs.distant)
    for ours, theirs in zip(validation_clips(read), validation_clips(data), strict=True):
        assert_same(ours, theirs)


@pytest.fixture
def root(s4: Path, tmp_path: Path) -> Path:
    """A copy of S4 that may be changed."""
    return Path(shutil.copytree(s4, tmp_path / "s4"))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "ROWS", 4)


def shards(folder: Path) -> dict[Path, int]:
    """Every file of a store, and when it was made."""
    found = folder.rglob("*.safetensors")
    return {path: path.stat().st_ino for path in found if not path.name.startswith(".")}


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("subset", ["s4", "ms3", "both"])
def test_batches_equal_those_of_the_files(both: Path, tmp_path: Path, subset: str, length: int) -> None:
    distant = subset != "ms3" or length == 1
    assert_equals_files(run_data(both, subset, length, distant), str(tmp_path))


def test_letterboxed_pictures_equal_those_of_the_files(tmp_path: Path) -> None:
    wide = {f"s4_train_{i}": {"size": (80 + 16 * i, 48)} for i in (1, 2)}
    make_avsbench(tmp_path, "s4", {"train": 4, "val": 1}, prepared=True, settings=wide)
    for length in (1, 5):
        data = run_data(tmp_path, length=length, resize="letterbox")
        assert_equals_files(data)
        assert not all(batch.labelled.inside.all() for batch in stored(data).loader())
    # Another size of the raw video is another image, though no frame has changed.
    sizes = avsbench(tmp_path, "s4").video_sizes
    sizes.write_text(sizes.read_text().replace("96,48", "48,96"))
    assert_equals_files(run_data(tmp_path, resize="letterbox"))


def test_published_flow_equals_that_of_the_files(root: Path) -> None:
    export_published_flow(root, "s4", bound=8.0)
    for bound in (8.0, 20.0):
        assert_equals_files(run_data(root, flow="published", flow_bound=bound))
    assert_equals_files(run_data(root))
    kinds = {path.parent.name for path in shards(root)}
    assert {name for name in kinds if "flow" in name} == {
        "flow-published-8-32-stretch-v1",
        "flow-published-20-32-stretch-v1",
        "flow-computed-32-stretch-v1",
    }


def test_flow_of_another_method_has_rows_of_its_own(root: Path) -> None:
    stored(run_data(root))
    before = shards(root)
    prepare(root, "s4", workers=1, flow_method="dis")
    assert_equals_files(run_data(root, flow_method="dis"))
    added = {path.parent.name for path in shards(root).keys() - before.keys()}
    assert added == {"flow-computed-dis-32-stretch-v1"}
    assert before.items() <= shards(root).items()
    assert_equals_files(run_data(root))


def test_few_labels_and_no_flow_equal_those_of_the_files(root: Path, tmp_path: Path) -> None:
    names = [video[0].video for video in read_videos(root, "s4") if video[0].split == "train"][:2]
    write_label_subset(tmp_path / "few.txt", names)
    for length in (1, 5):
        assert_equals_files(run_data(root, length=length, labelled=str(tmp_path / "few.txt")))
    assert_equals_files(run_data(root, neighbouring_frames=False))


def test_what_is_there_is_not_made_again(root: Path) -> None:
    base = stored(run_data(root, distant=False, neighbouring_frames=False))
    assert base.cache
    first = shards(root)
    assert {path.parent.name for path in first} == {"frame-32-stretch-v1", "mask-32-stretch-v1", "log_mel-v1"}
    counts: list[tuple[int, int]] = []
    stored(run_data(root), progress=lambda done, total: counts.append((done, total)))
    assert counts[-1] == (6 * 5 + 2 * 5, 6 * 5 + 2 * 5), "flow for all, the rest for distant frames"
    second = shards(root)
    assert first.items() < second.items()
    counts.clear()
    assert_equals_files(run_data(root))
    stored(run_data(root), progress=lambda done, total: counts.append((done, total)))
    assert shards(root) == second
    assert not counts
    stored(run_data(root, image_size=64))
    assert second.items() < shards(root).items()


def test_a_changed_file_is_read_anew(root: Path) -> None:
    video = next(video for video in read_videos(root, "s4") if video[0].split == "train")
    stored(run_data(root))
    size = (64, 64)

    def redraw() -> None:
        write_image(video[0].image, 255 - read_image(video[0].image))

    def still() -> None:
        write_flow_png(video[1].flow(), np.zeros_like(read_flow_png(video[1].flow())))

    def invert() -> None:
        write_mask(video[0].mask, ~read_mask(video[0].mask, size))

    def silence() -> None:
        save_log_mel(video[0].log_mel, torch.full_like(load_log_mel(video[0].log_mel), -4.6))

    for kind, change in {"frame": redraw, "flow": still, "mask": invert, "log_mel": silence}.items():
        before = shards(root)
        change()
        assert_equals_files(run_data(root))
        after = shards(root)
        gone = {path.parent.name.split("-")[0] for path in before.keys() - after.keys()}
        # Flow and mask are checked against their frame, whose change is therefore theirs too.
        assert gone == ({"frame", "flow", "mask"} if kind == "frame" else {kind}), "the old rows are removed"
        assert len(before.items() & after.items()) > len(after) // 2, "other shards stay"
    path = video[2].image
    before = shards(root)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    stored(run_data(root))
    assert shards(root) != before, "a time of change alone counts"


def test_another_version_reads_nothing_of_the_old(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(run_data(root))
    before = shards(root)
    monkeypatch.setattr(cache_module, "FORMAT_VERSION", 2)
    read = stored(run_data(root))
    assert read.cache
    used = {slots[kind][0].path for slots in read.cache.slots.values() for kind in ("image", "log_mel")}
    assert not used & before.keys()


def test_a_damaged_shard_is_made_again(root: Path) -> None:
    stored(run_data(root))
    for number, path in enumerate(sorted(shards(root))):
        content = path.read_bytes()
        path.write_bytes((b"", content[:5], content[:-1], content + b"x", b"x" * len(content))[number % 5])
    assert_equals_files(run_data(root))


def test_rows_travel_as_the_path_of_their_shard(root: Path) -> None:
    read = stored(run_data(root))
    assert read.cache
    slot = next(iter(read.cache.slots.values()))["image"]
    sent = pickle.dumps(slot)
    assert len(sent) < 1000
    shard, number = pickle.loads(sent)
    assert np.array_equal(shard.rows[number], slot[0].rows[slot[1]])
    assert not shard.rows.flags.writeable
    slot[0].path.unlink()
    with pytest.raises(AvsegError, match="start again"):
        pickle.loads(sent)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's list of open files")
def test_a_store_of_many_shards_holds_no_file_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "ROWS", 1)
    before = len(os.listdir("/proc/self/fd"))
    read = stored(run_data(root))
    assert read.cache
    assert len(shards(root)) > 100
    assert len(os.listdir("/proc/self/fd")) < before + 10


def test_only_masks_that_are_used_are_stored_and_none_that_is_hidden(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a hidden mask opened, nor could one be told from a shard."""
    opened: list[str] = []
    real = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda path, *args, **more: opened.append(str(path)) or real(path, *args, **more)
    )
    names = [video[0].video for video in read_videos(root, "s4") if video[0].split == "train"][:2]
    write_label_subset(tmp_path / "few.txt", names)
    stored(run_data(root, length=5, labelled=str(tmp_path / "few.txt")))
    masks = [path for path in opened if "gt_masks" in path]
    assert len(masks) == 2 + 2 * 5
    assert {Path(path).parent.name for path in masks if "train" in path} == set(names)
    assert not any("hidden" in path for path in opened)
    rows = [name for path in shards(root) if "mask" in path.parent.name for name, _ in Shard(path).names]
    train = [name for name in rows if "/train/" in name]
    assert len(rows) == 12
    assert len(train) == 2
    assert all(name.endswith("_1.png") for name in train)


def test_the_sources_are_not_opened_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(run_data(root))
    for name in ("read_image", "read_mask", "read_flow_png", "load_log_mel"):
        monkeypatch.setattr(f"avseg.data.rows.{name}", lambda *_: pytest.fail("a file was read"))
    read = stored(run_data(root))
    assert len(list(read.loader())) == 9
    assert len(list(validation_clips(read))) == 2


BUILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from avseg.data import cache
cache.ROWS = 1
from data.test_cache import run_data, stored
stored(run_data(Path(sys.argv[1])), workers=1)
"""


def build(root: Path) -> "subprocess.Popen[bytes]":
    """A real process that builds, one frame a shard."""
    tests = Path(__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", BUILD, str(root), str(tests), str(tests / "media")])


def test_a_killed_build_goes_on_where_it_was(root: Path) -> None:
    process = build(root)
    while process.poll() is None and len(shards(root)) < 5:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = shards(root)
    assert len(made) >= 5
    for path in made:
        assert len(Shard(path).rows) == 1, "what has its name is whole"
    (root / ".avseg/store/s4/frame-32-stretch-v1/.tmp-left.safetensors").write_bytes(b"half")
    assert_equals_files(run_data(root))
    assert made.items() <= shards(root).items()
    assert not [path for path in (root / ".avseg").rglob(".tmp-*") if path.is_file()]


def test_processes_that_build_at_once_share_the_work(root: Path) -> None:
    processes = [build(root) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    names = [(path.parent.name, name) for path in shards(root) for name, _ in Shard(path).names]
    assert len(names) == len(set(names)) == 40 + 40 + 40 + (6 + 10), "frames, flow, sound, masks"
    assert_equals_files(run_data(root))


def test_a_folder_that_cannot_be_written_to(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".avseg").mkdir(exist_ok=True)
    (root / ".avseg" / "store").write_text("in the way")
    with pytest.warns(CacheWarning, match=r"store/s4 cannot be written to \(.*--data\.store"):
        read = stored(run_data(root))
    assert read.cache is None
    assert len(list(read.loader())) == 9
    with pytest.raises(AvsegError, match=r"cannot be written to.*--data\.store"):
        stored(run_data(root), str(root / ".avseg" / "store"))
    assert_equals_files(run_data(root), str(tmp_path / "elsewhere"))
    assert shards(tmp_path / "elsewhere")
    assert not shards(root)
    (root / ".avseg" / "store").unlink()
    usage = shutil.disk_usage(root)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.warns(CacheWarning, match=r"0\.0 GB are needed there"):
        assert stored(run_data(root)).cache is None
    assert not shards(root)


def test_a_complete_store_needs_no_permission(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(run_data(root))
    monkeypatch.setattr("avseg.data.cache._Part.build", lambda *_: pytest.fail("it was built"))
    assert_equals_files(run_data(root))


def test_faulty_files_are_sentences(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = next(video for video in read_videos(root, "s4") if video[0].split == "train")
    data = run_data(root)
    path = video[1].image
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(AvsegError, match=f"{path.name} is not a whole image"):
        stored(data)
    path.unlink()
    with pytest.raises(AvsegError, match=f"{path.name} does not exist"):
        stored(data)
    path.write_bytes(whole)
    real = cache_module.read_row

    def meddled(frame, *more):
        frame.log_mel.touch()
        return real(frame, *more)

    monkeypatch.setattr(cache_module, "read_row", meddled)
    with pytest.raises(AvsegError, match="changed while it was read: start again"):
        stored(data)
