"""The demo of the engine alone tells what happens and leaves pictures."""

from pathlib import Path

import pytest
from PIL import Image

from core import demo

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny-bagel"


def run(*arguments: str | Path) -> int:
    return demo.main([str(argument) for argument in arguments])


def test_it_tells_each_step_and_saves_each_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model_path", TINY, "--num_images", "1", "--output_dir", tmp_path) == 0
    out = capsys.readouterr().out
    for name in ("auto_generation", "auto_editing"):
        path = tmp_path / name / "image_01.png"
        assert f"-> {path}" in out
        with Image.open(path) as image:
            assert image.size == (64, 64)
    assert "given: A magical forest" in out
    assert "given: an image of 64 x 64" in out
    assert "thinking: " in out


def test_an_image_and_a_prompt_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64), "green").save(tmp_path / "mine.png")
    mine = ("--image", tmp_path / "mine.png", "--prompt", "Make the circle red", "--no-think", "--num_images", "1")
    assert run("--model_path", TINY, "--demo", "auto_editing", *mine, "--output_dir", tmp_path) == 0
    assert "given: Make the circle red" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.rglob("image_*.png")) == ["image_01.png"]


def test_what_cannot_be_used_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model_path", tmp_path / "nothing") == 2
    assert run("--model_path", TINY, "--image", tmp_path / "nothing.png") == 2
    (tmp_path / "text.png").write_text("no image")
    assert run("--model_path", TINY, "--image", tmp_path / "text.png") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)
