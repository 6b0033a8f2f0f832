//! Builds from Dockerfile to image on a store of its own, with steps that really run: chroot in namespaces of
//! their own, with busybox as the base image. Needs root; skipped with a printed reason where that is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cached;
mod copying;
mod executor;
mod failing;
mod lab;
mod mounting;
mod settings;
mod staged;
