//! Calling conventions of a machine and the numbers of system calls in each.
//!
//! A 64-bit machine runs programs of its 32-bit kin, too; they have other numbers, and a filter that did not
//! know them would have to kill them or let them do anything.

use std::str::FromStr;

use super::Mistake;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Architecture {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

/// Set in the number of every call of the x32 convention, which shares its audit value with x86-64.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Calls whose arguments hold pointers have numbers of their own in x32, where pointers have 32 bits.
const X32_OWN: [(&str, u32); 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// Of the ARM convention only, far above the others.
const ARM_OWN: [(&str, u32); 3] = [
    ("breakpoint", 0xf_0001),
    ("cacheflush", 0xf_0002),
    ("set_tls", 0xf_0005),
];

impl Architecture {
    /// Of the machine that this program is made for.
    pub const NATIVE: Architecture = if cfg!(target_arch = "aarch64") {
        Architecture::Aarch64
    } else {
        Architecture::X86_64
    };

    /// What a document may name: `None` is an architecture whose programs cannot run on this machine.
    pub fn parse(name: &str) -> Result<Option<Architecture>, Mistake> {
        let x86 = cfg!(target_arch = "x86_64");
        let arm = cfg!(target_arch = "aarch64");
        let known = match name {
            "SCMP_ARCH_NATIVE" => return Ok(Some(Architecture::NATIVE)),
            "SCMP_ARCH_X86_64" => (x86, Architecture::X86_64),
            "SCMP_ARCH_X86" => (x86, Architecture::X86),
            "SCMP_ARCH_X32" => (x86, Architecture::X32),
            "SCMP_ARCH_AARCH64" => (arm, Architecture::Aarch64),
            "SCMP_ARCH_ARM" => (arm, Architecture::Arm),
            "SCMP_ARCH_MIPS"
            | "SCMP_ARCH_MIPS64"
            | "SCMP_ARCH_MIPS64N32"
            | "SCMP_ARCH_MIPSEL"
            | "SCMP_ARCH_MIPSEL64"
            | "SCMP_ARCH_MIPSEL64N32"
            | "SCMP_ARCH_PPC"
            | "SCMP_ARCH_PPC64"
            | "SCMP_ARCH_PPC64LE"
            | "SCMP_ARCH_S390"
            | "SCMP_ARCH_S390X"
            | "SCMP_ARCH_PARISC"
            | "SCMP_ARCH_PARISC64"
            | "SCMP_ARCH_RISCV64"
            | "SCMP_ARCH_LOONGARCH64"
            | "SCMP_ARCH_M68K"
            | "SCMP_ARCH_SH"
            | "SCMP_ARCH_SHEB" => return Ok(None),
            other => return Err(Mistake::Architecture(other.to_owned())),
        };
        Ok(known.0.then_some(known.1))
    }

    /// `AUDIT_ARCH_*`, as the kernel tells it to the filter.
    pub fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 | Architecture::X32 => 0xc000_003e,
            Architecture::X86 => 0x4000_0003,
            Architecture::Aarch64 => 0xc000_00b7,
            Architecture::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 32 bits.
    pub fn narrow(self) -> bool {
        matches!(self, Architecture::X86 | Architecture::Arm)
    }

    /// The number of a call, if this architecture has it. Without the x32 bit.
    pub fn number(self, name: &str) -> Option<u32> {
        let id = match self {
            Architecture::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            Architecture::X86 => syscalls::x86::Sysno::from_str(name).ok()?.id(),
            Architecture::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok()?.id(),
            Architecture::Arm => match syscalls::arm::Sysno::from_str(name) {
                Ok(number) => number.id(),
                Err(_) => return find(&ARM_OWN, name),
            },
            Architecture::X32 => match find(&X32_OWN, name) {
                Some(number) => return Some(number),
                None => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            },
        };
        u32::try_from(id).ok()
    }
}

fn find(table: &[(&str, u32)], name: &str) -> Option<u32> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(Architecture::X86_64.number("read"), Some(0));
        assert_eq!(Architecture::X86.number("read"), Some(3));
        assert_eq!(Architecture::X32.number("read"), Some(0));
        assert_eq!(Architecture::X32.number("execve"), Some(520));
        assert_eq!(Architecture::Aarch64.number("openat"), Some(56));
        assert_eq!(Architecture::Aarch64.number("open"), None);
        assert_eq!(Architecture::Arm.number("set_tls"), Some(0xf0005));
        assert_eq!(Architecture::X86_64.number("mseal"), Some(462));
        assert_eq!(Architecture::X86_64.number("no_such_call"), None);
    }

    #[test]
    fn foreign_architectures_are_known_but_do_not_matter() {
        assert_eq!(Architecture::parse("SCMP_ARCH_S390X"), Ok(None));
        assert!(Architecture::parse("SCMP_ARCH_Z80").is_err());
    }
}
