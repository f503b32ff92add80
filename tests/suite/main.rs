//! The integration tests: one binary, named as properties, on real databases and the real program.

mod store;
