//! bpf(2), as far as the device filter of cgroup v2 needs it: load, attach, list, detach.
//!
//! Every call goes through one function that hands the kernel a zeroed block of 128 bytes, laid out by offset; fields
//! beyond those set here are zero, which older and newer kernels alike take as absent.
//! Source: bpf(2), Linux include/uapi/linux/bpf.h.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// More programs than the kernel lets one group hold (BPF_CGROUP_MAX_PROGS).
const MOST_PROGRAMS: usize = 64;

/// `union bpf_attr`.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new() -> Self {
        Self([0; 128])
    }

    fn word(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn descriptor(self, at: usize, fd: RawFd) -> Self {
        self.word(at, fd.cast_unsigned())
    }

    fn pointer<T>(mut self, at: usize, value: *const T) -> Self {
        self.0[at..at + 8].copy_from_slice(&(value as u64).to_ne_bytes());
        self
    }
}

/// # Safety
/// Every pointer stored in `attributes` must be valid for what `command` does with it.
unsafe fn bpf(command: libc::c_int, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: the block is 128 bytes, alive, and writable; what it points to is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel just made this descriptor (close-on-exec) for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a device filter. Each element is one 8-byte instruction.
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0";
    let count = u32::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut attributes = Attributes::new()
        .word(0, PROG_TYPE_CGROUP_DEVICE)
        .word(4, count)
        .pointer(8, instructions.as_ptr())
        .pointer(16, licence.as_ptr());
    // SAFETY: the kernel reads `count` instructions and a nul-terminated string; both live across the call.
    owned(unsafe { bpf(PROG_LOAD, &mut attributes) }?)
}

/// Attaches a device filter to a group, beside those already there.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = Attributes::new()
        .descriptor(0, cgroup.as_fd().as_raw_fd())
        .descriptor(4, program.as_fd().as_raw_fd())
        .word(8, CGROUP_DEVICE)
        .word(12, ALLOW_MULTI);
    // SAFETY: no pointers.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Detaches one device filter.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = Attributes::new()
        .descriptor(0, cgroup.as_fd().as_raw_fd())
        .descriptor(4, program.as_fd().as_raw_fd())
        .word(8, CGROUP_DEVICE);
    // SAFETY: no pointers.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

/// Identifiers of the device filters attached to this very group.
pub fn device_programs(cgroup: impl AsFd) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MOST_PROGRAMS];
    let mut attributes = Attributes::new()
        .descriptor(0, cgroup.as_fd().as_raw_fd())
        .word(4, CGROUP_DEVICE)
        .pointer(16, ids.as_mut_ptr())
        .word(24, MOST_PROGRAMS as u32);
    // SAFETY: the kernel writes at most the stated number of identifiers into `ids`, which lives across the call.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = u32::from_ne_bytes([
        attributes.0[24],
        attributes.0[25],
        attributes.0[26],
        attributes.0[27],
    ]);
    Ok(ids.iter().copied().take(count as usize).collect())
}

/// A descriptor of a loaded program.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new().word(0, id);
    // SAFETY: no pointers.
    owned(unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) }?)
}
