//! Observability Hub: the library behind its small binaries.
