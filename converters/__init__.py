"""Converters: from a Keras file to a graph, through passes, to a packed program and a TFLite flatbuffer."""
