"""Low-precision inference on edge devices."""
