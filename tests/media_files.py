"""Files as people send them, made here."""

from __future__ import annotations

import io
import wave

from PIL import Image, ImageDraw


def picture(width: int = 1200, height: int = 900, *, form: str = "JPEG", exif: bool = True) -> bytes:
    """A picture with a frame; a JPEG says where it was taken."""
    image = Image.new("RGB", (width, height), "#8fb7d9")
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 10, height // 10, width * 9 // 10, height * 9 // 10), outline="#7a1f2b", width=20)
    draw.ellipse((width // 3, height // 3, width * 2 // 3, height * 2 // 3), fill="#e9c46a")
    more = {}
    if exif and form == "JPEG":
        tags = Image.Exif()
        tags[0x010E] = "taken at home"
        tags.get_ifd(0x8825)[1] = "N"
        more = {"exif": tags}
    written = io.BytesIO()
    image.save(written, form, **more)
    return written.getvalue()


def recording(seconds: float = 1.0) -> bytes:
    """A recording of silence, as WAV."""
    written = io.BytesIO()
    with wave.open(written, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80" * int(8000 * seconds))
    return written.getvalue()


def document(size: int = 2_000) -> bytes:
    """A PDF of so many bytes."""
    return b"%PDF-1.7\n" + b"%" * (size - 15) + b"\n%%EOF"
