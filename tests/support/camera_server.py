"""A network camera for tests: each of its images carries the time at which it was made, as black and white blocks.

    /usr/bin/python3 camera_server.py rtsp PORT [--codec jpeg] [--user NAME:PASSWORD] [--fps N]
    python camera_server.py mjpeg PORT [--fps N]

RTSP is GStreamer's own server (gir1.2-gst-rtsp-server-1.0) and runs under the system's Python, which has its bindings;
MJPEG by HTTP needs OpenCV. Prints `ready` once it can be connected to. Tests load it with `runpy` for `read_stamp`.
"""

import argparse
import sys
import time

WIDTH, HEIGHT, BLOCK = 320, 240, 16
COLUMNS = WIDTH // BLOCK
ROWS = 3
CHECK = 4093


def rows_of(milliseconds):
    """A grey image, 8 bits a pixel: the time and its remainder in ROWS rows of blocks, the rest grey."""
    bits = milliseconds << 12 | milliseconds % CHECK
    rows = b""
    for row in range(ROWS):
        line = b"".join(
            bytes([235 if bits >> (row * COLUMNS + column) & 1 else 16]) * BLOCK for column in range(COLUMNS)
        )
        rows += line * BLOCK
    return rows + bytes([128]) * (WIDTH * (HEIGHT - ROWS * BLOCK))


def read_stamp(image):
    """The time in seconds that an image carries, whatever was lost in its compression."""
    bits = 0
    for row in range(ROWS):
        for column in range(COLUMNS):
            block = image[row * BLOCK + 4 : (row + 1) * BLOCK - 4, column * BLOCK + 4 : (column + 1) * BLOCK - 4]
            bits |= int(block.mean() > 127) << (row * COLUMNS + column)
    milliseconds, check = bits >> 12, bits & 0xFFF
    assert milliseconds % CHECK == check, "not an image of this camera"
    return milliseconds / 1e3


def serve_rtsp(options):
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    encoder = {
        "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max=25 "
        "! rtph264pay name=pay0 pt=96 config-interval=1",
        "jpeg": "jpegenc quality=90 ! rtpjpegpay name=pay0 pt=26",
    }[options.codec]
    source = (
        "appsrc name=src is-live=true format=time do-timestamp=true "
        f"caps=video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT},framerate={options.fps}/1"
    )

    class Factory(GstRtspServer.RTSPMediaFactory):
        def do_create_element(self, url):
            return Gst.parse_launch(f"( {source} ! videoconvert ! video/x-raw,format=I420 ! {encoder} )")

        def do_configure(self, media):
            element = media.get_element().get_child_by_name("src")

            def push():
                element.emit("push-buffer", Gst.Buffer.new_wrapped(rows_of(int(time.time() * 1e3))))
                return True

            timer = GLib.timeout_add(1000 // options.fps, push)
            media.connect("unprepared", lambda _: GLib.source_remove(timer))

    server = GstRtspServer.RTSPServer(service=str(options.port), address="127.0.0.1")
    factory = Factory()
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    if options.user:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_digest(*options.user.split(":"), token)
        permissions = GstRtspServer.RTSPPermissions()
        for right in ("access", "construct"):
            permissions.add_permission_for_role("user", f"media.factory.{right}", True)
        factory.set_permissions(permissions)
        server.set_auth(auth)
    if not server.attach(None):
        sys.exit("the port is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


def serve_mjpeg(options):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    import cv2
    import numpy as np

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            while True:
                grey = np.frombuffer(rows_of(int(time.time() * 1e3)), np.uint8).reshape(HEIGHT, WIDTH)
                data = cv2.imencode(".jpg", grey)[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                try:
                    self.wfile.write(head + data + b"\r\n")
                except OSError:
                    return
                time.sleep(1 / options.fps)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", options.port), Camera)
    print("ready", flush=True)
    server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["rtsp", "mjpeg"])
    parser.add_argument("port", type=int)
    parser.add_argument("--codec", default="h264", choices=["h264", "jpeg"])
    parser.add_argument("--user")
    parser.add_argument("--fps", type=int, default=25)
    options = parser.parse_args()
    {"rtsp": serve_rtsp, "mjpeg": serve_mjpeg}[options.kind](options)


if __name__ == "__main__":
    main()
