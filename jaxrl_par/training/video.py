"""Pictures that move, as files: GIF, and MP4 where there is an encoder."""

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from jaxrl_par.errors import RefusedError
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import make_folder, writing

_AT_END = 1000
"""Milliseconds that the last frame stays."""
_SECONDS = 60.0
"""Of the encoder."""


def check_name(path: str | Path) -> None:
    """Accepts what `save` can write.

    Raises:
      RefusedError: the name ends otherwise, or there is no encoder.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise RefusedError(f"{path} must end in .gif or .mp4")
    if suffix == ".mp4" and _encoder() is None:
        raise RefusedError(
            f"{path}: MP4 needs an encoder: pip install 'jaxrl-par[video]', or write a"
            " .gif"
        )


def save(frames: Sequence[Image.Image], path: str | Path, milliseconds: int) -> None:
    """Writes frames of one size, the last of which stays for a second.

    Raises:
      RefusedError: as `check_name`.
      TrainingError: the file cannot be written; an old one is as it was.
    """
    check_name(path)
    path = Path(path)
    make_folder(path.parent)
    # Encoders look at the end of the name.
    temporary = path.with_name(f"{path.stem}.new{path.suffix}")
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    try:
        with writing(path, sum(x.width * x.height for x in frames)):
            write(frames, temporary, milliseconds)
            temporary.replace(path)
    finally:
        # Where nothing can be written, nothing can be removed: that was told.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_gif(frames: Sequence[Image.Image], path: Path, milliseconds: int) -> None:
    first, *rest = (x.convert("P", palette=Image.Palette.ADAPTIVE) for x in frames)
    durations = [milliseconds] * len(rest) + [_AT_END]
    first.save(
        path, "GIF", save_all=True, append_images=rest, duration=durations, loop=0
    )


def _write_mp4(frames: Sequence[Image.Image], path: Path, milliseconds: int) -> None:
    still = max(_AT_END // milliseconds, 1)
    # H.264 halves the resolution of colours, so sides are even.
    width, height = (side + side % 2 for side in frames[0].size)
    box = 0, 0, width, height
    pixels = [np.asarray(x.convert("RGB").crop(box)).tobytes() for x in frames]
    command = [
        *(str(_encoder()), "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
        *("-r", f"1000/{milliseconds}", "-i", "-", "-an", "-pix_fmt", "yuv420p"),
        str(path),
    ]
    try:
        subprocess.run(
            command,
            input=b"".join(pixels + pixels[-1:] * (still - 1)),
            check=True,
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace")
        last = said.strip().rpartition("\n")[2] or type(error).__name__
        raise TrainingError(f"{path} cannot be encoded: {last}") from error


def _encoder() -> str | None:
    if find_spec("imageio_ffmpeg") is None:
        return shutil.which("ffmpeg")
    from imageio_ffmpeg import get_ffmpeg_exe  # pyright: ignore[reportMissingImports]

    return get_ffmpeg_exe()
