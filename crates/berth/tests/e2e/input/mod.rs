//! Input that must be refused: with one clear error, the right exit code or status, and nothing left behind.

mod archives;
mod builds;
mod commands;
mod disk;
mod host;
mod powerless;
mod registries;
mod requests;
mod words;
