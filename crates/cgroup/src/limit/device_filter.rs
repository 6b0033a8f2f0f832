//! The device rules of cgroup v2: a BPF program that the kernel asks at every open and mknod.
//!
//! The program sees (kind and access, major, minor) and answers 1 for yes. It is straight-line code: one block per
//! exception, each skipping to the next when it does not concern the request. Several programs on one group are
//! joined by AND, so a new set of rules is attached beside the old one first and the old one then detached: at no
//! moment is more allowed than either says.
//!
//! Source: Linux include/uapi/linux/bpf.h (`bpf_cgroup_dev_ctx`), Documentation/bpf/standardization.

use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::devices::{DeviceRules, Exception, Kind};
use crate::error::{CgroupError, Result};

/// BPF_DEVCG_DEV_*.
const KIND_BLOCK: i32 = 1;
const KIND_CHAR: i32 = 2;

const R0: u8 = 0;
const CONTEXT: u8 = 1;
const R_KIND: u8 = 2;
const R_ACCESS: u8 = 3;
const R_MAJOR: u8 = 4;
const R_MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb4;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5e;
const JUMP_EQUAL: u8 = 0x16;
const EXIT: u8 = 0x95;

/// One instruction: opcode, registers, offset, immediate, as the kernel lays them out.
fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let mut bytes = [0u8; 8];
    bytes[0] = opcode;
    bytes[1] = if cfg!(target_endian = "little") {
        source << 4 | destination
    } else {
        destination << 4 | source
    };
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// The program that decides as [`DeviceRules::allows`] does.
pub(super) fn compile(rules: &DeviceRules) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD_WORD, R_KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, R_ACCESS, R_KIND, 0, 0),
        instruction(AND_IMMEDIATE, R_KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, R_ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, R_MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, R_MINOR, CONTEXT, 8, 0),
    ];
    for exception in &rules.exceptions {
        program.extend(block(exception, rules.allow_by_default));
    }
    program.push(instruction(
        MOVE_IMMEDIATE,
        R0,
        0,
        0,
        i32::from(rules.allow_by_default),
    ));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

/// Tests of one exception, then its answer. Every failed test jumps behind the block.
fn block(exception: &Exception, allow_by_default: bool) -> Vec<u64> {
    // (opcode, destination, source, immediate, is a jump behind the block)
    let mut steps: Vec<(u8, u8, u8, i32, bool)> = Vec::new();
    let kind = match exception.kind {
        Kind::Block => KIND_BLOCK,
        Kind::Char => KIND_CHAR,
    };
    steps.push((JUMP_NOT_EQUAL, R_KIND, 0, kind, true));
    for (register, number) in [(R_MAJOR, exception.major), (R_MINOR, exception.minor)] {
        if let Some(number) = number {
            // Immediates are 32 bits; the comparison is of 32 bits too, so the sign does not matter.
            steps.push((JUMP_NOT_EQUAL, register, 0, number.cast_signed(), true));
        }
    }
    // The context register is free by now: everything was loaded from it.
    steps.push((MOVE_REGISTER, CONTEXT, R_ACCESS, 0, false));
    steps.push((AND_IMMEDIATE, CONTEXT, 0, i32::from(exception.access), false));
    if allow_by_default {
        // Denied when any asked bit is denied.
        steps.push((JUMP_EQUAL, CONTEXT, 0, 0, true));
    } else {
        // Allowed when every asked bit is allowed.
        steps.push((JUMP_NOT_EQUAL_REGISTER, CONTEXT, R_ACCESS, 0, true));
    }
    steps.push((MOVE_IMMEDIATE, R0, 0, i32::from(!allow_by_default), false));
    steps.push((EXIT, 0, 0, 0, false));
    let length = steps.len();
    steps
        .into_iter()
        .enumerate()
        .map(|(at, (opcode, destination, source, immediate, jump))| {
            let offset = if jump {
                i16::try_from(length - at - 1).unwrap_or(i16::MAX)
            } else {
                0
            };
            instruction(opcode, destination, source, offset, immediate)
        })
        .collect()
}

/// Attaches the program to the group and detaches what was attached to it before.
pub(super) fn attach(directory: &Path, program: &[u64]) -> Result<()> {
    let failed = |action| {
        move |source: std::io::Error| CgroupError::DeviceFilter {
            path: directory.to_path_buf(),
            action,
            source,
        }
    };
    let group = rustix::fs::open(
        directory,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| CgroupError::io("open", directory, error))?;
    let old = sys::bpf::device_programs(&group).map_err(failed("list"))?;
    let loaded = sys::bpf::load_device_program(program).map_err(failed("load"))?;
    sys::bpf::attach_device_program(&group, &loaded).map_err(failed("attach"))?;
    for id in old {
        let Ok(program) = sys::bpf::program_by_id(id) else {
            continue;
        };
        sys::bpf::detach_device_program(&group, &program).map_err(failed("replace"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::devices::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would; only the instructions that are generated here are known.
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0usize;
        loop {
            let bytes = program[at].to_ne_bytes();
            let (destination, source) = (usize::from(bytes[1] & 0xf), usize::from(bytes[1] >> 4));
            let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let immediate = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            at += 1;
            let jump = usize::try_from(offset.max(0)).unwrap();
            match bytes[0] {
                LOAD_WORD => registers[destination] = context[jump / 4],
                AND_IMMEDIATE => registers[destination] &= immediate,
                SHIFT_RIGHT => registers[destination] >>= immediate,
                MOVE_REGISTER => registers[destination] = registers[source],
                MOVE_IMMEDIATE => registers[destination] = immediate,
                JUMP_NOT_EQUAL if registers[destination] != immediate => at += jump,
                JUMP_NOT_EQUAL_REGISTER if registers[destination] != registers[source] => at += jump,
                JUMP_EQUAL if registers[destination] == immediate => at += jump,
                JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER | JUMP_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("unknown opcode {other:#x}"),
            }
        }
    }

    fn exceptions() -> Vec<Exception> {
        vec![
            Exception {
                kind: Kind::Char,
                major: None,
                minor: None,
                access: MKNOD,
            },
            Exception {
                kind: Kind::Char,
                major: Some(1),
                minor: Some(3),
                access: READ | WRITE | MKNOD,
            },
            Exception {
                kind: Kind::Char,
                major: Some(136),
                minor: None,
                access: READ | WRITE,
            },
            Exception {
                kind: Kind::Block,
                major: Some(8),
                minor: Some(0),
                access: READ,
            },
        ]
    }

    #[test]
    fn the_program_decides_as_the_rules_do() {
        for allow_by_default in [false, true] {
            let rules = DeviceRules {
                allow_by_default,
                exceptions: exceptions(),
            };
            let program = compile(&rules);
            for (kind, number) in [(Kind::Block, 1), (Kind::Char, 2)] {
                for major in [0, 1, 8, 136, u32::MAX] {
                    for minor in [0, 3, 7] {
                        for access in 1..8u8 {
                            assert_eq!(
                                run(&program, number, u32::from(access), major, minor) == 1,
                                rules.allows(kind, major, minor, access),
                                "{allow_by_default} {kind:?} {major}:{minor} {access}"
                            );
                        }
                    }
                }
            }
        }
    }
}
