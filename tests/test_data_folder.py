"""A folder of pictures: classes, colours, sizes, and what is refused."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from PIL import Image

from diffence.data import load


def picture(path: pathlib.Path, value: object, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)  # type: ignore[arg-type]


@pytest.fixture
def pets(tmp_path: pathlib.Path) -> pathlib.Path:
    picture(tmp_path / "pets" / "dog" / "b.png", (1, 2, 3))
    picture(tmp_path / "pets" / "dog" / "a.PNG", (4, 5, 6))
    picture(tmp_path / "pets" / "cat" / "z.bmp", (7, 8, 9))
    (tmp_path / "pets" / "cat" / ".hidden.png").write_text("no picture")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path / "pets"


def test_classes_and_pictures_are_sorted_by_name(pets: pathlib.Path) -> None:
    data = load(pets)
    assert data.images.shape == (3, 3, 4, 5)
    assert data.images[:, :, 0, 0].tolist() == [[7, 8, 9], [4, 5, 6], [1, 2, 3]]
    assert data.labels.tolist() == [0, 1, 1]
    assert (data.class_names, data.classes, data.name) == (("cat", "dog"), 2, "pets")


def test_rows_stay_rows(tmp_path: pathlib.Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    (tmp_path / "only").mkdir()
    Image.fromarray(pixels).save(tmp_path / "only" / "a.png")
    np.testing.assert_array_equal(load(tmp_path).images[0], pixels.transpose(2, 0, 1))


def test_one_channel_when_all_are_grey(tmp_path: pathlib.Path) -> None:
    picture(tmp_path / "a" / "1.png", 9, mode="L")
    picture(tmp_path / "b" / "1.png", 1, mode="1")
    assert load(tmp_path).images[:, :, 0, 0].tolist() == [[9], [255]]
    picture(tmp_path / "b" / "2.png", (1, 2, 3, 4), mode="RGBA")
    assert load(tmp_path).images[:, :, 0, 0].tolist() == [[9, 9, 9], [255, 255, 255], [1, 2, 3]]


def test_mixed_sizes_need_a_size(pets: pathlib.Path) -> None:
    picture(pets / "dog" / "c.png", (200, 0, 0), size=(10, 12))
    with pytest.raises(ValueError, match=r"c\.png: 12x10 pixels .*z\.bmp has 4x5; give size="):
        load(pets)
    assert load(pets, size=(6, 8)).images.shape == (4, 3, 6, 8)
    data = load(pets, size=7)
    assert data.images.shape == (4, 3, 7, 7)
    assert data.images[3, :, 3, 3].tolist() == [200, 0, 0]
    with pytest.raises(ValueError, match=r"size: .*0"):
        load(pets, size=0)


def test_refuses_and_names_the_file(pets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole = (pets / "dog" / "b.png").read_bytes()
    for content in (whole[:-30], b"no picture", b""):
        (pets / "dog" / "b.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"b\.png: not a readable picture"):
            load(pets)
    (pets / "dog" / "b.png").unlink()
    Image.fromarray(np.full((4, 5), 40000, np.uint16)).save(pets / "dog" / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png: .*8 bits a channel"):
        load(pets)
    (pets / "dog" / "deep.png").unlink()
    (pets / "dog" / "puppies").mkdir()
    with pytest.raises(ValueError, match="puppies: a folder inside a class"):
        load(pets)
    (pets / "dog" / "puppies").rmdir()
    (pets / "bird").mkdir()
    with pytest.raises(ValueError, match="bird: no pictures"):
        load(pets)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected one sub-folder a class"):
        load(tmp_path / "empty")
