//! Block devices: relative weight, and bytes and operations per second.

use std::path::{Path, PathBuf};

use spec::runtime::{BlockIo, ThrottleDevice};

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

use super::check::limits_block_io;
use super::has_line;

impl Cgroup {
    pub(super) fn apply_block_io(&self, block_io: &BlockIo) -> Result<()> {
        if !limits_block_io(block_io) {
            return Ok(());
        }
        if let Some(weight) = block_io.weight.filter(|weight| *weight != 0)
            && !(1..=1000).contains(&weight)
        {
            return Err(CgroupError::Invalid(format!(
                "invalid blkio weight {weight}: the range is 10 to 1000"
            )));
        }
        match self.version() {
            Version::V2 => self.block_io_v2(block_io),
            Version::V1 | Version::Hybrid => self.block_io_v1(block_io),
        }
    }

    fn block_io_v1(&self, block_io: &BlockIo) -> Result<()> {
        let directory = self.v1_for("blkio", "blkio limit")?;
        if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
            let path = first_of(&directory, "blkio.weight", "blkio.bfq.weight");
            file::write_checked(&path, &weight.to_string(), "blkio weight", same_weight)?;
        }
        for device in &block_io.weight_device {
            if let Some(weight) = device.weight {
                let path = first_of(&directory, "blkio.weight_device", "blkio.bfq.weight_device");
                let value = format!("{}:{} {weight}", device.major, device.minor);
                set_weight(&path, &value, weight)?;
            }
        }
        for (name, devices) in [
            (
                "blkio.throttle.read_bps_device",
                &block_io.throttle_read_bps_device,
            ),
            (
                "blkio.throttle.write_bps_device",
                &block_io.throttle_write_bps_device,
            ),
            (
                "blkio.throttle.read_iops_device",
                &block_io.throttle_read_iops_device,
            ),
            (
                "blkio.throttle.write_iops_device",
                &block_io.throttle_write_iops_device,
            ),
        ] {
            for device in devices {
                let value = format!("{}:{} {}", device.major, device.minor, device.rate);
                // A rate of zero takes the line away.
                let same = |wrote: &str, found: &str| match device.rate {
                    0 => line_of(found, device).is_none(),
                    _ => has_line(wrote, found),
                };
                file::write_checked(&directory.join(name), &value, "blkio rate of a device", same)?;
            }
        }
        Ok(())
    }

    fn block_io_v2(&self, block_io: &BlockIo) -> Result<()> {
        let directory = self.v2_for("io", "blkio limit")?;
        let bfq = directory.join("io.bfq.weight");
        // BFQ takes the weight as it is; io.weight has a range of its own, 1 to 10000.
        let (path, convert): (PathBuf, fn(u16) -> u32) = if bfq.exists() {
            (bfq, u32::from)
        } else {
            (directory.join("io.weight"), io_weight)
        };
        if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
            let value = convert(weight).to_string();
            file::write_checked(&path, &value, "blkio weight", same_weight)?;
        }
        for device in &block_io.weight_device {
            if let Some(weight) = device.weight {
                let value = format!("{}:{} {}", device.major, device.minor, convert(weight));
                set_weight(&path, &value, weight)?;
            }
        }
        for (key, devices) in [
            ("rbps", &block_io.throttle_read_bps_device),
            ("wbps", &block_io.throttle_write_bps_device),
            ("riops", &block_io.throttle_read_iops_device),
            ("wiops", &block_io.throttle_write_iops_device),
        ] {
            for device in devices {
                // The line has all four rates; one without a limit is not there.
                let same = |wrote: &str, found: &str| match (device.rate, line_of(found, device)) {
                    (0, None) => true,
                    (_, line) => {
                        let rate = wrote.split_once(' ').map_or("", |(_, rate)| rate);
                        line.is_some_and(|line| line.split_whitespace().any(|word| word == rate))
                    }
                };
                file::write_checked(
                    &directory.join("io.max"),
                    &io_max(key, device),
                    "blkio rate of a device",
                    same,
                )?;
            }
        }
        Ok(())
    }
}

/// What a file of one line for each device says of this one.
fn line_of<'t>(text: &'t str, device: &ThrottleDevice) -> Option<&'t str> {
    let number = format!("{}:{} ", device.major, device.minor);
    text.lines().find(|line| line.starts_with(&number))
}

/// A weight of zero takes the line away.
fn set_weight(path: &Path, value: &str, weight: u16) -> Result<()> {
    file::write_checked(path, value, "blkio weight of a device", |wrote, found| {
        weight == 0 || has_line(wrote, found)
    })
}

/// The weight that holds where a device has none of its own; some files have a line for each of those as well.
pub(super) fn same_weight(wrote: &str, found: &str) -> bool {
    found
        .lines()
        .any(|line| line.strip_prefix("default ").unwrap_or(line).trim() == wrote)
}

fn first_of(directory: &Path, first: &str, second: &str) -> PathBuf {
    let path = directory.join(first);
    if path.exists() {
        path
    } else {
        directory.join(second)
    }
}

/// 10..=1000 spread over 1..=10000.
pub(crate) fn io_weight(weight: u16) -> u32 {
    1 + (u32::from(weight.max(10)) - 10) * 9999 / 990
}

/// Rate zero takes the limit away, as it does in v1.
fn io_max(key: &str, device: &ThrottleDevice) -> String {
    let ThrottleDevice { major, minor, rate } = device;
    if *rate == 0 {
        format!("{major}:{minor} {key}=max")
    } else {
        format!("{major}:{minor} {key}={rate}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_spread_over_the_v2_range() {
        assert_eq!((io_weight(10), io_weight(1000), io_weight(1)), (1, 10_000, 1));
    }

    #[test]
    fn a_rate_of_zero_lifts() {
        let device = ThrottleDevice {
            major: 8,
            minor: 0,
            rate: 0,
        };
        assert_eq!(io_max("rbps", &device), "8:0 rbps=max");
    }
}
