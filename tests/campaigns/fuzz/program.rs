//! Through the whole program.
