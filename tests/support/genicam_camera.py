"""Aravis' fake GigE Vision camera, on loopback. Runs under the system's Python (python3-gi, gir1.2-aravis-0.8).

/usr/bin/python3 genicam_camera.py SERIAL
"""

import sys

import gi

gi.require_version("Aravis", "0.8")
from gi.repository import Aravis, GLib  # noqa: E402

camera = Aravis.GvFakeCamera.new("127.0.0.1", sys.argv[1])
if not camera.is_running():
    sys.exit("the fake camera does not start")
print("ready", flush=True)
GLib.MainLoop().run()
