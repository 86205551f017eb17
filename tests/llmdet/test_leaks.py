"""Evaluation photos are found by id and by content, and a list that is not there is never a pass."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image, ImageFilter

from llmdet.catalogue import photo_ids_of
from llmdet.errors import FormatError, SettingError
from llmdet.images import inspect
from llmdet.leaks import MAX_DISTANCE, Leak, Leaks, LeakSettings, PhotoList, Space, coco_id, flickr_id
from llmdet.photo_lists import look, no_photos, photo_list, pictures, read_lists
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.coco import Coco
from llmdet.sources.joined import Joined
from llmdet.sources.odvg import Odvg
from llmdet.sources.refcoco import RefCoco


def record(image: str, image_id: str = "x", **extra: Any) -> Record:
    return Record(f"s/{image_id}/0", "s", image_id, "0", "detection", image, "s", 64, 48, "dog. ", extra=extra)


def write(path: Path, value: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else orjson.dumps(value))
    return str(path)


def listed(folder: Path, image_data: str = "") -> Leaks:
    """COCO 139 in val (with its Flickr address), COCO 285 in LVIS, Flickr 36979 in val, RefCOCO's 581 in testA."""
    flickr = "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg"
    coco = {"images": [{"id": 139, "file_name": "000000000139.jpg", "flickr_url": flickr}], "annotations": []}
    lvis = {"images": [{"id": 7, "coco_url": "http://images.cocodataset.org/train2017/000000000285.jpg"}]}
    refs = [
        {"image_id": 581, "file_name": "COCO_train2014_000000000581_16.jpg", "split": "testA"},
        {"image_id": 582, "file_name": "COCO_train2014_000000000582_1.jpg", "split": "train"},
    ]
    write(folder / "flickr/val.txt", b"36979\n65567\n")
    settings = LeakSettings(
        coco_val=write(folder / "coco.json", coco),
        lvis_val=write(folder / "lvis.json", lvis),
        flickr30k=str(folder / "flickr"),
        refcoco=(write(folder / "refcoco/refs(unc).p", pickle.dumps(refs)),),
        image_data=image_data,
    )
    return read_lists(settings)


# --- by id ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "where"),
    [
        ("000000000139.jpg", "coco_val"),
        ("train2017/000000000139.jpg", "coco_val"),
        ("COCO_train2014_000000000139.jpg", "coco_val"),
        ("COCO_val2014_000000000285.png", "lvis_val"),
        ("COCO_train2014_000000000581.jpg", "refcoco refcoco/refs(unc).p"),
    ],
)
def test_a_coco_photo_is_known_under_each_of_its_names(tmp_path: Path, image: str, where: str) -> None:
    assert listed(tmp_path).by_id(record(image), "any") == Leak(
        where, "id", f"COCO {int(image.rpartition('_')[2][-16:-4])}"
    )


def test_other_photos_are_no_leak(tmp_path: Path) -> None:
    leaks = listed(tmp_path)
    # Training refs, ids that are not COCO's, and names that only end in the same digits.
    for image in ("COCO_train2014_000000000582.jpg", "139.jpg", "00000/000000139.jpg", "1000000000139.jpg", "a139.jpg"):
        assert leaks.by_id(record(image), "none") is None, image


def test_an_instances_file_with_other_names_is_known_by_its_ids(tmp_path: Path) -> None:
    leaks = listed(tmp_path)
    assert leaks.by_id(record("renamed.jpg", "139"), "coco") == Leak("coco_val", "id", "COCO 139")
    assert leaks.by_id(record("renamed.jpg", "139"), "any") is None  # another set's 139
    url = "http://images.cocodataset.org/val2017/000000000139.jpg"
    assert leaks.by_id(record("renamed.jpg", coco_url=url), "any") == Leak("coco_val", "id", "COCO 139")


def test_a_flickr_id_ties_flickr30k_to_coco(tmp_path: Path) -> None:
    leaks = listed(tmp_path)
    assert leaks.by_id(record("36979.jpg"), "flickr") == Leak("flickr30k_val", "id", "Flickr 36979")
    assert leaks.by_id(record("36979.jpg"), "visual_genome") is None  # Visual Genome's 36979 is another photo
    assert leaks.by_id(record("2970773875.jpg"), "flickr") == Leak("coco_val", "id", "Flickr 2970773875")
    url = "http://farm1.staticflickr.com/1/65567_0a1b2c_z.jpg"
    found = leaks.by_id(record("000000000009.jpg", flickr_url=url), "coco")
    assert found == Leak("flickr30k_val", "id", "Flickr 65567")


def test_visual_genome_photos_are_told_by_image_data(tmp_path: Path) -> None:
    rows = [
        {"image_id": 61, "coco_id": 139, "flickr_id": None},
        {"image_id": 62, "coco_id": None, "flickr_id": 65567},
        {"image_id": 63, "coco_id": 5, "flickr_id": 6},
    ]
    leaks = listed(tmp_path, image_data=write(tmp_path / "image_data.json", rows))
    assert leaks.by_id(record("61.jpg"), "visual_genome") == Leak("coco_val", "id", "COCO 139")
    assert leaks.by_id(record("VG_100K/62.jpg"), "visual_genome") == Leak("flickr30k_val", "id", "Flickr 65567")
    assert leaks.by_id(record("63.jpg"), "visual_genome") is None
    assert sorted(leaks.visual_genome) == [61, 62]  # the others take no memory


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("COCO_train2014_000000581857.jpg", 581857),
        ("a/b/000000000009.jpg", 9),
        ("000000000000.jpg", 0),
        ("581857.jpg", None),
        ("x000000581857.jpg", None),
        ("COCO_train2014_000000581857_16.jpg", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_coco_ids_are_twelve_digits_at_the_end(path: Any, number: int | None) -> None:
    assert coco_id(path) == number


def test_flickr_ids_are_the_number_before_the_secret() -> None:
    assert flickr_id("http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg") == 6255196340
    assert flickr_id("https://live.staticflickr.com/65535/1_ff.jpg") == 1
    assert flickr_id("https://example.org/6255196340.jpg") is None
    assert flickr_id(None) is None


def test_ids_of_photos_are_those_of_the_source_even_where_it_is_joined_or_finished() -> None:
    coco = Coco(annotations="a", images="b")
    spaces = {
        "coco": photo_ids_of(coco),
        "joined": photo_ids_of(Joined(base=RefCoco(annotations="a", images="b", name="refcoco+"))),
        "finished": photo_ids_of(Odvg(annotations="a", images="b", name="gqa")),
        "unknown": photo_ids_of(Odvg(annotations="a", images="b", name="mine")),
    }
    assert spaces == {"coco": "coco", "joined": "coco", "finished": "visual_genome", "unknown": "any"}


# --- what becomes of it --------------------------------------------------------------------------------------------


def test_a_leak_is_a_policy_reject_a_flag_or_nothing(tmp_path: Path) -> None:
    leaks = listed(tmp_path)
    one = record("000000000139.jpg", "139")
    leak = leaks.by_id(one, "coco")
    assert leak is not None
    told = "coco_val: COCO 139 (by id)"
    assert leaks.judge(one, leak) == Reject("s/139/0", "record", "policy", "ingest", "leak", told)
    flagged = replace(leaks, settings=replace(leaks.settings, action="flag")).judge(one, leak)
    assert flagged == replace(one, flags=("leak",), extra={"leak": told})
    kept = replace(leaks, settings=replace(leaks.settings, action="keep"))
    assert kept.by_id(one, "coco") is None
    assert {row["why"] for row in kept.report("coco")["lists"].values()} == {"leaks.action is keep"}


# --- lists that are not there --------------------------------------------------------------------------------------


def states(leaks: Leaks, space: Space, images: str = "decode") -> dict[str, str]:
    """`checked`, or why not, of each list."""
    rows = leaks.report(space, images)["lists"]
    return {name: row["state"] if row["state"] == "checked" else row["why"] for name, row in rows.items()}


def test_nothing_named_is_nothing_checked() -> None:
    told = Leaks().report("coco") | read_lists(LeakSettings()).report("coco")
    assert {row["state"] for row in told["lists"].values()} == {"not checked"}
    assert set(told["lists"]) == {"coco_val", "lvis_val", "flickr30k_val", "flickr30k_test", "refcoco", "photos"}


def test_a_missing_list_is_not_checked_and_says_where_it_was_looked_for(tmp_path: Path) -> None:
    leaks = listed(tmp_path)
    told = states(leaks, "coco")
    assert told["coco_val"] == told["lvis_val"] == told["flickr30k_val"] == "checked"
    assert told["flickr30k_test"] == f"there is no test.txt in {tmp_path}/flickr"
    gone = read_lists(replace(leaks.settings, lvis_val=str(tmp_path / "gone.json"), refcoco=("/no/refs(g).p",)))
    assert states(gone, "coco")["lvis_val"] == f"there is no {tmp_path}/gone.json"
    assert states(gone, "coco")["refcoco no/refs(g).p"] == "there is no /no/refs(g).p"


def test_a_list_that_cannot_tell_a_sources_photos_is_not_checked(tmp_path: Path) -> None:
    leaks = listed(tmp_path)
    assert states(leaks, "visual_genome")["coco_val"] == "leaks.image_data is not set"
    assert states(leaks, "none")["coco_val"].startswith("this source's photos have no ids of COCO or Flickr")
    # LVIS' rows have no address at Flickr here, so no photo of Flickr30k can be told by them; COCO's rows have.
    assert states(leaks, "flickr")["lvis_val"] == "the list has no ids of flickr"
    assert states(leaks, "flickr")["coco_val"] == "checked"
    assert leaks.report("coco")["lists"]["flickr30k_val"]["by"] == "flickr_url"


def test_wrong_files_are_errors_and_training_lists_are_refused(tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong.json", [1, 2])
    with pytest.raises(FormatError, match="must hold the list 'images' of objects"):
        read_lists(LeakSettings(coco_val=wrong))
    with pytest.raises(FormatError, match="must hold a list of objects"):
        read_lists(LeakSettings(image_data=wrong))
    write(tmp_path / "val.txt", b"36979\nabc\n")
    with pytest.raises(FormatError, match="must hold Flickr ids, digits alone; got 'abc'"):
        read_lists(LeakSettings(flickr30k=str(tmp_path)))
    train = write(tmp_path / "finetune_refcoco_train.json", {"images": []})
    with pytest.raises(SettingError, match="photos of training are no leak"):
        read_lists(LeakSettings(refcoco=(train,)))


def test_mdetrs_files_serve_as_lists_too(tmp_path: Path) -> None:
    rows = {"images": [{"file_name": "COCO_train2014_000000000581.jpg", "original_id": "581", "id": 0}]}
    refcoco = write(tmp_path / "finetune_refcoco+_testB.json", rows)
    write(tmp_path / "final_flickr_separateGT_test.json", {"images": [{"file_name": "1007129816.jpg"}] * 5})
    leaks = read_lists(LeakSettings(refcoco=(refcoco,), flickr30k=str(tmp_path)))
    assert leaks.by_id(record("000000000581.jpg"), "coco") is not None
    assert leaks.by_id(record("1007129816.jpg"), "flickr") == Leak("flickr30k_test", "id", "Flickr 1007129816")
    assert leaks.report("flickr")["lists"]["flickr30k_test"]["photos"] == 1


# --- by content ----------------------------------------------------------------------------------------------------


def scene(seed: int, side: int = 256) -> Image.Image:
    """A picture with something at every scale that a photo has."""
    rng = np.random.default_rng(seed)
    layers = [Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (4, 9, 30)]
    first, second, third = (layer.resize((side, side), Image.Resampling.BICUBIC) for layer in layers)
    return Image.blend(Image.blend(first, second, 0.4), third, 0.2).filter(ImageFilter.GaussianBlur(1))


def saved(image: Image.Image, path: Path, **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return str(path)


@pytest.fixture
def evaluated(tmp_path: Path) -> Leaks:
    for seed in range(6):
        saved(scene(seed), tmp_path / f"val/{seed}.jpg", quality=92)
    folder = str(tmp_path / "val")
    photos = photo_list(folder, look(folder, pictures(folder)))
    return read_lists(LeakSettings(photos=(folder,)), (photos,))


def found(leaks: Leaks, url: str) -> Leak | None:
    facts = inspect(url, looks=True)
    return leaks.by_looks(facts.sha256, facts.looks)


def test_the_same_bytes_under_another_name(evaluated: Leaks, tmp_path: Path) -> None:
    copy = tmp_path / "other.jpg"
    copy.write_bytes((tmp_path / "val/3.jpg").read_bytes())
    assert found(evaluated, str(copy)) == Leak("photos val", "sha256", "3.jpg")


@pytest.mark.parametrize("how", ["compressed", "smaller", "larger", "png", "cropped", "grey"])
def test_a_copy_that_was_changed_a_little(evaluated: Leaks, tmp_path: Path, how: str) -> None:
    image = Image.open(tmp_path / "val/3.jpg")
    made = {
        "compressed": lambda: saved(image, tmp_path / "c.jpg", quality=40),
        "smaller": lambda: saved(image.resize((128, 128)), tmp_path / "c.jpg"),
        "larger": lambda: saved(image.resize((400, 380)), tmp_path / "c.jpg"),
        "png": lambda: saved(image, tmp_path / "c.png"),
        "cropped": lambda: saved(image.crop((2, 2, 254, 254)), tmp_path / "c.jpg"),
        "grey": lambda: saved(image.convert("L"), tmp_path / "c.jpg"),
    }[how]()
    leak = found(evaluated, made)
    assert leak is not None
    assert (leak.where, leak.how, leak.which) == ("photos val", "perceptual", "3.jpg")
    assert leak.distance is not None
    assert 0 <= leak.distance <= MAX_DISTANCE
    assert str(leak) == f"photos val: 3.jpg (perceptual, distance {leak.distance} of 256)"


def test_other_pictures_do_not_match(evaluated: Leaks, tmp_path: Path) -> None:
    for seed in range(100, 130):
        assert found(evaluated, saved(scene(seed), tmp_path / "new.jpg")) is None


def test_the_limit_is_a_setting(evaluated: Leaks, tmp_path: Path) -> None:
    image = Image.open(tmp_path / "val/3.jpg")
    cropped = saved(image.crop((2, 2, 254, 254)), tmp_path / "c.jpg")
    leak = found(evaluated, cropped)
    assert leak is not None
    assert leak.distance
    strict = replace(evaluated, settings=replace(evaluated.settings, max_distance=leak.distance - 1))
    assert found(strict, cropped) is None


def test_the_nearest_photo_counts_up_to_the_limit_and_plain_ones_never() -> None:
    """Distances by hand: 5 bits from the first photo, none from the second, which is plain."""
    looks = np.zeros((4, 2), np.uint64)
    looks[0, 0], looks[3, 0] = 0b1101, 0b11
    photos = PhotoList("hand", ("near", "plain"), ("a", "b"), looks, np.array([False, True]))
    query = bytes(32)
    assert photos.find(None, query, 5) == Leak("hand", "perceptual", "near", 5)
    assert photos.find(None, query, 4) is None
    assert photos.find("b", None, 0) == Leak("hand", "sha256", "plain")
    opposite = PhotoList("hand", ("far",), ("c",), ~np.zeros((4, 1), np.uint64), np.array([False]))
    assert opposite.find(None, query, 255) is None
    assert opposite.find(None, query, 256) == Leak("hand", "perceptual", "far", 256)


def test_small_photos_are_not_shrunk_below_what_the_hash_needs(tmp_path: Path) -> None:
    both = [saved(scene(1, 128), tmp_path / name) for name in ("a.jpg", "a.png")]
    first, second = (np.frombuffer(inspect(url, looks=True).looks or b"", np.uint8) for url in both)
    assert int(np.bitwise_count(first ^ second).sum()) < 20


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1"])
def test_plain_pictures_have_no_perceptual_hash(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    url = saved(Image.new(mode, (90, 70)), tmp_path / f"plain.{suffix}")
    assert inspect(url, looks=True).looks is None


def test_two_plain_pictures_are_not_the_same_photo(tmp_path: Path) -> None:
    saved(Image.new("RGB", (90, 70), "white"), tmp_path / "val/white.png")
    folder = str(tmp_path / "val")
    photos = photo_list(folder, look(folder, pictures(folder)))
    leaks = read_lists(LeakSettings(photos=(folder,)), (photos,))
    assert found(leaks, saved(Image.new("RGB", (80, 60), "black"), tmp_path / "black.png")) is None
    assert found(leaks, saved(scene(1), tmp_path / "scene.png")) is None


def test_hashes_are_made_only_when_asked_for(tmp_path: Path) -> None:
    url = saved(scene(1), tmp_path / "a.jpg")
    assert inspect(url).looks is None
    assert inspect(url, decode=False, looks=True).looks is None
    assert len(inspect(url, looks=True).looks or b"") == 32


def test_folders_say_what_was_not_compared(evaluated: Leaks, tmp_path: Path) -> None:
    assert states(evaluated, "none")["photos val"] == "checked"
    assert states(evaluated, "none", "skip")["photos val"] == "ingest.images is skip, so no photo was opened"
    header = evaluated.report("none", "header")["lists"]["photos val"]
    assert (header["by"], header["state"]) == ("sha256", "checked")
    assert "copies that differ are not found" in header["why"]
    (tmp_path / "val/broken.jpg").write_bytes(b"\xff\xd8 no picture")
    folder = str(tmp_path / "val")
    photos = photo_list(folder, look(folder, pictures(folder)))
    again = read_lists(LeakSettings(photos=(folder,)), (photos,)).report("none")["lists"]["photos val"]
    assert (again["photos"], again["why"]) == (6, "1 files there are no readable pictures")
    gone = read_lists(LeakSettings(photos=("/no",)), (no_photos("/no"),))
    assert states(gone, "none")["photos no"] == "there is no /no"
    assert not gone.by_content


def test_real_copies_are_found_and_real_photos_are_told_apart(samples: Path, tmp_path: Path) -> None:
    folder = str(samples / "flickr30k/flickr30k_images")
    leaks = read_lists(LeakSettings(photos=(folder,)), (photo_list(folder, look(folder, pictures(folder))),))
    for photo in sorted((samples / "coco/val2014_100/images").glob("*.jpg")):
        assert found(leaks, str(photo)) is None
    for photo in sorted(Path(folder).glob("*.jpg")):
        image = Image.open(photo)
        sink = io.BytesIO()
        image.resize((image.width * 2 // 3, image.height * 2 // 3)).save(sink, "JPEG", quality=70)
        (tmp_path / "copy.jpg").write_bytes(sink.getvalue())
        leak = found(leaks, str(tmp_path / "copy.jpg"))
        assert leak is not None
        assert leak.which == photo.name
