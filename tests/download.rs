//! Downloads against a server that misbehaves as told.
