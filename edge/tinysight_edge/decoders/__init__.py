"""One file per family of decoders; `tinysight_edge.decode` has the table that names them."""
