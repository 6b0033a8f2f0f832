//! Block device traffic.

use std::path::Path;

use crate::error::Result;
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

use super::{BlkioEntry, BlkioStats};

impl Cgroup {
    pub(super) fn blkio_stats(&self) -> Result<BlkioStats> {
        match self.version() {
            Version::V2 => self
                .unified()
                .map_or_else(|| Ok(BlkioStats::default()), |path| v2(&path)),
            Version::V1 | Version::Hybrid => self
                .v1("blkio")
                .map_or_else(|| Ok(BlkioStats::default()), |path| v1(&path)),
        }
    }
}

fn v1(directory: &Path) -> Result<BlkioStats> {
    // BFQ counts only where it is the scheduler; the throttling layer counts everywhere.
    let first_with_entries = |names: [&str; 2]| -> Result<Vec<BlkioEntry>> {
        for name in names {
            let entries = parse_v1(&file::read_optional(&directory.join(name))?.unwrap_or_default());
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    Ok(BlkioStats {
        service_bytes: first_with_entries([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ])?,
        serviced: first_with_entries([
            "blkio.bfq.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ])?,
    })
}

/// `8:0 Read 4096`; the line `Total 4096` at the end has no device and is left out.
fn parse_v1(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            operation: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn v2(directory: &Path) -> Result<BlkioStats> {
    let text = file::read_optional(&directory.join("io.stat"))?.unwrap_or_default();
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            let (list, operation) = match key {
                "rbytes" => (&mut stats.service_bytes, "read"),
                "wbytes" => (&mut stats.service_bytes, "write"),
                "rios" => (&mut stats.serviced, "read"),
                "wios" => (&mut stats.serviced, "write"),
                _ => continue,
            };
            list.push(BlkioEntry {
                major,
                minor,
                operation: operation.to_owned(),
                value,
            });
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_device_are_left_out() {
        let entries = parse_v1("8:0 Read 4096\n8:0 Write 0\nTotal 4096\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(
            entries[0],
            BlkioEntry {
                major: 8,
                minor: 0,
                operation: "Read".into(),
                value: 4096
            }
        );
    }
}
