//! Archives of very many entries: what is kept in memory does not grow with them.
//!
//! Looked at is the most memory that the process ever had at once, so each test wants a process of its own, as `nextest` gives it;
//! where tests share one, only the first here is run unless others are asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::io::{self, Read};

use image::{Images, ImportOptions};
use registry::{Client, ClientConfig};
use store::{Options, StorageDriver, Store};
use support::{is_root, log};

/// Most bytes that may come to what the process had before, of 300,000 entries or of a million: the blocks on their way through
/// decompression, digests and compression.
const MOST: u64 = 24 << 20;

/// The archive of so many empty files in one directory, with names of a hundred bytes, made while it is read.
struct Entries {
    left: u32,
    block: io::Cursor<Vec<u8>>,
}

impl Entries {
    fn new(count: u32) -> Entries {
        Entries {
            left: count,
            block: io::Cursor::default(),
        }
    }
}

impl Read for Entries {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || self.left == 0 {
                return Ok(read);
            }
            self.left -= 1;
            let mut header = tar::Header::new_ustar();
            let name = format!("{}/{:0>98}", "d", self.left);
            header.set_path(name).unwrap();
            header.set_size(0);
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            header.set_cksum();
            self.block = io::Cursor::new(header.as_bytes().to_vec());
        }
    }
}

/// What the kernel counts for this process, in bytes.
fn memory(of: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
    line.trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap()
        << 10
}

/// What it took at most beyond what there was, while `work` was done.
fn most_of(work: impl FnOnce()) -> u64 {
    // From now on (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    work();
    memory("VmHWM").saturating_sub(before)
}

/// An image's life: it comes, is measured, and goes.
fn live(count: u32, dedup: Option<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        driver: StorageDriver::Overlay,
        dedup,
    };
    let store = Store::open_as(&dir.path().join("root"), options).unwrap();
    let images = Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap();
    let (progress, _events) = log();
    let import = ImportOptions {
        reference: Some("many:1".parse().unwrap()),
        ..ImportOptions::default()
    };
    let image = images.import(Entries::new(count), import, progress).unwrap();
    let snapshots = images.store().snapshots();
    let top = images.snapshot(&image).unwrap();
    assert_eq!(snapshots.usage(top).unwrap().inodes, u64::from(count) + 2);
    images.remove_by_digest(&image.id).unwrap();
    images.gc(|_| Ok(store::Roots::default())).unwrap();
    assert!(!snapshots.fs(top).exists());
}

fn are_bounded(count: u32) {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    for dedup in [None, Some(store::DEDUP_FROM)] {
        let most = most_of(|| live(count, dedup));
        assert!(most < MOST, "{count} entries took {most} bytes of memory");
    }
}

#[test]
fn three_hundred_thousand_entries_take_no_more_memory_than_a_few() {
    are_bounded(300_000);
}

#[test]
#[ignore = "takes a million inodes and a minute"]
fn a_million_entries_take_no_more_memory_than_a_few() {
    are_bounded(1_000_000);
}
