"""Frames through GStreamer: CSI and GenICam cameras, and launch lines."""
