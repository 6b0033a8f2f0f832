//! Loading a system call filter into the calling process, and asking the kernel what filters may do.
//!
//! Sources: seccomp(2), Documentation/userspace-api/seccomp_filter.rst.

pub mod questions;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One instruction of a classic BPF program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub value: u32,
}

impl Instruction {
    /// The eight bytes of a program file, in the machine's order.
    pub fn to_bytes(self) -> [u8; 8] {
        let (code, value) = (self.code.to_ne_bytes(), self.value.to_ne_bytes());
        [
            code[0],
            code[1],
            self.jump_true,
            self.jump_false,
            value[0],
            value[1],
            value[2],
            value[3],
        ]
    }

    pub fn from_bytes(bytes: [u8; 8]) -> Instruction {
        Instruction {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jump_true: bytes[2],
            jump_false: bytes[3],
            value: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }
}

/// The kernel's limit of instructions in one program.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Puts a filter over the calling process (all threads when `SECCOMP_FILTER_FLAG_TSYNC` is in `flags`).
/// Needs CAP_SYS_ADMIN or no_new_privs. The kernel checks the program; it cannot be taken off again.
pub fn load(program: &[Instruction], flags: u32) -> io::Result<()> {
    set_filter(program, flags).map(drop)
}

/// As [`load`], for a program that asks somebody: gives the descriptor on which the questions come
/// (`SECCOMP_FILTER_FLAG_NEW_LISTENER`, Linux 5.0), close-on-exec.
pub fn load_with_listener(program: &[Instruction], flags: u32) -> io::Result<OwnedFd> {
    let fd = set_filter(program, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: with that flag the kernel gives a fresh descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_filter(program: &[Instruction], flags: u32) -> io::Result<libc::c_long> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let argument = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `Instruction` has the layout of sock_filter (repr(C), same fields), the pointer and length are of
    // one live slice, and the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const argument,
        )
    };
    if result >= 0 {
        Ok(result)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the kernel knows the filter's return value `action`.
pub fn action_available(action: u32) -> bool {
    // SAFETY: the pointer is to a live integer that the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{self, Exit, Options};
    use std::os::fd::AsFd;

    #[test]
    fn bytes_and_back() {
        let instruction = Instruction {
            code: 0x15,
            jump_true: 3,
            jump_false: 250,
            value: 0xdead_beef,
        };
        assert_eq!(Instruction::from_bytes(instruction.to_bytes()), instruction);
    }

    #[test]
    fn a_loaded_filter_answers() {
        // "return ERRNO(13)" for getppid only: load nr; if == getppid skip one; allow; errno
        let number = libc::SYS_getppid as u32;
        let program = [
            Instruction {
                code: 0x20,
                jump_true: 0,
                jump_false: 0,
                value: 0,
            },
            Instruction {
                code: 0x15,
                jump_true: 1,
                jump_false: 0,
                value: number,
            },
            Instruction {
                code: 0x06,
                jump_true: 0,
                jump_false: 0,
                value: 0x7fff_0000,
            },
            Instruction {
                code: 0x06,
                jump_true: 0,
                jump_false: 0,
                value: 0x0005_000d,
            },
        ];
        let child = process::spawn(Options::default(), || {
            if rustix::thread::set_no_new_privs(true).is_err() || load(&program, 0).is_err() {
                return 1;
            }
            // SAFETY: getppid takes nothing.
            let result = unsafe { libc::syscall(libc::SYS_getppid) };
            let denied = io::Error::last_os_error().raw_os_error() == Some(13);
            i32::from(!(result == -1 && denied))
        })
        .unwrap();
        assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), Exit::Code(0));
    }
}
