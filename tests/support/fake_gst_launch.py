"""A stand-in for `gst-launch-1.0`: writes what matroskamux writes, and fails in the ways that FAKE_GST names.

Run as a program; tests load it with `runpy` for `stream` and `install`. Standard library only: it starts fast.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

WIDTH, HEIGHT = 6, 4  # 18 bytes a row: padded to 20
UNKNOWN = b"\x01" + b"\xff" * 7


def element(number, body, size=None):
    """An EBML element; its size takes 8 bytes, as in matroskamux's headers."""
    head = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return head + (size or (b"\x01" + len(body).to_bytes(7, "big"))) + body


def header(width=WIDTH, height=HEIGHT, fourcc=b"BGR\x18", codec=b"V_UNCOMPRESSED\0", duration=40_000_000, tracks=1):
    video = element(0xB0, width.to_bytes(2, "big")) + element(0xBA, height.to_bytes(2, "big"))
    video += element(0x2EB524, fourcc)
    entry = element(0xD7, b"\x01") + element(0x83, b"\x01") + element(0xE0, video) + element(0x86, codec)
    if duration:
        entry += element(0x23E383, duration.to_bytes(4, "big"))
    return (
        element(0x1A45DFA3, element(0x4282, b"matroska\0"))
        + element(0x18538067, b"", UNKNOWN)
        + element(0x1549A966, element(0x2AD7B1, b"\x0f\x42\x40"))
        + element(0x1654AE6B, element(0xAE, entry) * tracks)
    )


def picture(index, width=WIDTH, height=HEIGHT):
    """Rows of BGR with every row padded to 4 bytes: blue tells the frame, green the column, red the row."""
    stride = (3 * width + 3) // 4 * 4
    rows = (b"".join(bytes((index % 256, x % 256, y % 256)) for x in range(width)) for y in range(height))
    return b"".join(row.ljust(stride, b"\xee") for row in rows)


def block(index, group=False, **size):
    body = b"\x81\0\0\x80" + picture(index, **size)
    if group:
        return element(0xA0, element(0xA1, body) + element(0x9B, b"\x28"))
    return element(0xA3, body, (0x10000000 | len(body)).to_bytes(4, "big"))


def cluster():
    return element(0x1F43B675, b"", UNKNOWN) + element(0xE7, b"\0")


def stream(count, group=False, **size):
    """A whole stream; a new cluster every third frame."""
    blocks = ((cluster() if index % 3 == 0 else b"") + block(index, group, **size) for index in range(count))
    return header(**size) + b"".join(blocks)


def install(folder):
    """Puts the stand-in into a folder; returns the folder for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "gst-launch-1.0"
    target.write_text(f"#!{sys.executable} -IS\n{Path(__file__).read_text()}")
    target.chmod(0o755)
    return folder


def main():
    mode = os.environ.get("FAKE_GST", "normal")
    Path(os.environ["FAKE_GST_LOG"]).write_text(f"{os.getpid()}\n" + "\n".join(sys.argv[1:]))
    output = int(re.fullmatch(r"fd=(\d+)", sys.argv[-1])[1])

    def send(data):
        view = memoryview(data)
        while view:
            view = view[os.write(output, view) :]

    def say(text):
        print(text, file=sys.stderr, flush=True)

    print("Setting pipeline to PAUSED ...", flush=True)
    print(
        "Pipeline is PREROLLING ..." if mode == "file" else "Pipeline is live and does not need PREROLL ...", flush=True
    )
    if mode == "error":
        say("ERROR: from element /GstPipeline:pipeline0/GstV4l2Src:v4l2src0: Cannot identify device '/dev/video9'.")
        say("ERROR: pipeline doesn't want to preroll.")
        sys.exit(255)
    if mode == "secret":
        say(f"ERROR: could not open {' '.join(sys.argv[1:])}")
        sys.exit(1)
    if mode == "silent":
        sys.exit(0)
    if mode == "argus":
        say("Error generated. gstnvarguscamerasrc.cpp, execute:751 No cameras available")
        print('Got EOS from element "pipeline0".', flush=True)
        sys.exit(0)
    if mode == "stuck":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(60)
    if mode == "junk":
        send(b"BM" * 5000)
        sys.exit(0)
    if mode == "codec":
        send(header(fourcc=b"I420", codec=b"V_MPEG4/ISO/AVC"))
        sys.exit(0)
    if mode == "chatty":
        for _ in range(3000):
            say("nvbuf_utils: something that nobody asked for " * 3)
    send(header())
    if mode == "resized":
        send(cluster() + block(0) + block(1, width=9))
        sys.exit(0)
    if mode in {"endless", "deaf", "family"}:
        if mode == "deaf":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if mode == "family":  # a child that holds the pipe and hears no interrupt
            sleeper = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
            child = subprocess.Popen([sys.executable, "-c", sleeper], pass_fds=(output,))
            Path(os.environ["FAKE_GST_LOG"]).with_suffix(".child").write_text(str(child.pid))
        send(cluster())
        for index in range(10**6):
            send(block(index))
            time.sleep(0.005)
    send(stream(5)[len(header()) :])
    if mode == "cut":
        send(block(5)[:50])
        sys.exit(0)
    if mode == "cut head":
        send(block(5)[:3])
        sys.exit(0)
    if mode == "stall":
        time.sleep(60)
    if mode == "trickle":
        for byte in block(5):
            send(bytes([byte]))
            time.sleep(0.05)
    if mode == "dies":
        say("ERROR: from element /GstPipeline:pipeline0/GstV4l2Src:v4l2src0: Could not read from resource.")
        sys.exit(1)


if __name__ == "__main__":
    main()
