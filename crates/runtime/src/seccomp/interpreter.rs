//! Tests of the compiler by running its programs on an interpreter of the filter machine.

use spec::runtime::{Seccomp, SeccompArg, SeccompSyscall};
use sys::seccomp::Instruction;

use super::architecture::{Architecture, X32_BIT};
use super::{Mistake, compile, default_seccomp};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

fn run(program: &[Instruction], audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u32; 16];
    data[0] = number;
    data[1] = audit;
    for (place, arg) in args.iter().enumerate() {
        data[4 + 2 * place] = *arg as u32;
        data[5 + 2 * place] = (*arg >> 32) as u32;
    }
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let branch = |yes: bool| usize::from(if yes { i.jump_true } else { i.jump_false });
        match i.code {
            0x20 => accumulator = data[i.value as usize / 4],
            0x54 => accumulator &= i.value,
            0x05 => at += i.value as usize,
            0x15 => at += branch(accumulator == i.value),
            0x25 => at += branch(accumulator > i.value),
            0x35 => at += branch(accumulator >= i.value),
            0x06 => return i.value,
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn native(program: &[Instruction], name: &str, args: [u64; 6]) -> u32 {
    let architecture = Architecture::NATIVE;
    run(
        program,
        architecture.audit(),
        architecture.number(name).unwrap(),
        args,
    )
}

fn rule(names: &[&str], action: &str, args: &[(u32, &str, u64, u64)]) -> SeccompSyscall {
    SeccompSyscall {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: action.to_owned(),
        errno_ret: None,
        args: args
            .iter()
            .map(|(index, op, value, value_two)| SeccompArg {
                index: *index,
                value: *value,
                value_two: *value_two,
                op: (*op).to_owned(),
            })
            .collect(),
    }
}

fn document(default: &str, syscalls: Vec<SeccompSyscall>) -> Seccomp {
    Seccomp {
        default_action: default.to_owned(),
        syscalls,
        ..Seccomp::default()
    }
}

#[test]
fn the_default_profile() {
    let held = &crate::template::DEFAULT_CAPABILITIES;
    let program = compile(&default_seccomp(held)).unwrap();
    assert!(program.len() < 1500, "{}", program.len());
    let check = |name: &str, first: u64| native(&program, name, [first, 0, 0, 0, 0, 0]);
    assert_eq!(check("read", 0), ALLOW);
    assert_eq!(check("chroot", 0), ALLOW);
    assert_eq!(check("mount", 0), errno(1));
    assert_eq!(check("unshare", 0), errno(1));
    assert_eq!(check("clone3", 0), errno(38));
    assert_eq!(check("clone", 0x11), ALLOW);
    assert_eq!(check("clone", 0x1000_0011), errno(1));
    for (family, answer) in [
        (2, ALLOW),
        (37, ALLOW),
        (38, errno(1)),
        (39, ALLOW),
        (40, errno(1)),
        (41, ALLOW),
    ] {
        assert_eq!(check("socket", family), answer, "family {family}");
    }
    assert_eq!(check("personality", 0xffff_ffff), ALLOW);
    assert_eq!(check("personality", 0x4_0000), errno(1));
    assert_eq!(
        run(&program, Architecture::NATIVE.audit(), 1000, [0; 6]),
        errno(38)
    );
    assert_eq!(run(&program, 0x1234, 0, [0; 6]), KILL);
    let admin = compile(&default_seccomp(&["CAP_SYS_ADMIN"])).unwrap();
    assert_eq!(native(&admin, "mount", [0; 6]), ALLOW);
    assert_eq!(native(&admin, "clone3", [0; 6]), ALLOW);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_other_architectures_of_the_machine() {
    let program = compile(&default_seccomp(&["CAP_KILL"])).unwrap();
    let (x86, x86_64) = (Architecture::X86, Architecture::X86_64);
    assert_eq!(
        run(&program, x86.audit(), x86.number("read").unwrap(), [0; 6]),
        ALLOW
    );
    assert_eq!(
        run(&program, x86.audit(), x86.number("mount").unwrap(), [0; 6]),
        errno(1)
    );
    assert_eq!(run(&program, x86_64.audit(), X32_BIT, [0; 6]), ALLOW);
    assert_eq!(run(&program, x86_64.audit(), X32_BIT + 520, [0; 6]), ALLOW);
    let only_native = compile(&document("SCMP_ACT_ALLOW", Vec::new())).unwrap();
    assert_eq!(run(&only_native, x86.audit(), 3, [0; 6]), KILL);
    assert_eq!(run(&only_native, x86_64.audit(), X32_BIT, [0; 6]), KILL);
    assert_eq!(run(&only_native, x86_64.audit(), 5000, [0; 6]), ALLOW);
}

#[test]
fn comparisons_of_64_bits() {
    let values = [
        0u64,
        1,
        5,
        6,
        7,
        0xffff_ffff,
        1 << 32,
        (1 << 32) + 5,
        (1 << 32) + 6,
        (7 << 32) + 6,
        u64::MAX,
    ];
    let models: [(&str, fn(u64, u64) -> bool); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    for (op, model) in models {
        for with in values {
            let rules = vec![rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(1, op, with, 0)])];
            let program = compile(&document("SCMP_ACT_ERRNO", rules)).unwrap();
            for value in values {
                let answer = native(&program, "ioctl", [0, value, 0, 0, 0, 0]);
                let expected = if model(value, with) { ALLOW } else { errno(1) };
                assert_eq!(answer, expected, "{value:#x} {op} {with:#x}");
            }
        }
    }
    let mask = 0xf0_0000_000f;
    let rules = vec![rule(
        &["ioctl"],
        "SCMP_ACT_ALLOW",
        &[(5, "SCMP_CMP_MASKED_EQ", mask, 0x10_0000_0003)],
    )];
    let program = compile(&document("SCMP_ACT_ERRNO", rules)).unwrap();
    let check = |value: u64| native(&program, "ioctl", [0, 0, 0, 0, 0, value]);
    assert_eq!(check(0x1f_ffff_fff3), ALLOW);
    assert_eq!(check(0x20_0000_0003), errno(1));
}

#[test]
fn several_rules_for_one_call() {
    let rules = vec![
        rule(&["ioctl"], "SCMP_ACT_ALLOW", &[]),
        rule(&["ioctl"], "SCMP_ACT_ERRNO", &[(1, "SCMP_CMP_EQ", 0x5412, 0)]),
        rule(
            &["read"],
            "SCMP_ACT_ALLOW",
            &[(0, "SCMP_CMP_EQ", 1, 0), (2, "SCMP_CMP_EQ", 2, 0)],
        ),
        rule(
            &["write"],
            "SCMP_ACT_ALLOW",
            &[(0, "SCMP_CMP_EQ", 1, 0), (0, "SCMP_CMP_EQ", 2, 0)],
        ),
        rule(&["close"], "SCMP_ACT_ERRNO", &[]),
        rule(&["close"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", 1, 0)]),
    ];
    let program = compile(&document("SCMP_ACT_KILL_PROCESS", rules)).unwrap();
    let check = |name: &str, args: [u64; 3]| native(&program, name, [args[0], args[1], args[2], 0, 0, 0]);
    assert_eq!(check("ioctl", [0, 0x5413, 0]), ALLOW);
    assert_eq!(check("ioctl", [0, 0x5412, 0]), errno(1));
    assert_eq!(check("read", [1, 0, 2]), ALLOW);
    assert_eq!(check("read", [1, 0, 3]), KILL);
    assert_eq!(check("write", [1, 0, 0]), ALLOW);
    assert_eq!(check("write", [2, 0, 0]), ALLOW);
    assert_eq!(check("write", [3, 0, 0]), KILL);
    assert_eq!(
        check("close", [1, 0, 0]),
        errno(1),
        "the strictest of several matches"
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    let bad = |action: &str, args: &[(u32, &str, u64, u64)]| {
        let rules = vec![
            rule(&["read"], "SCMP_ACT_ALLOW", &[]),
            rule(&["read"], action, args),
        ];
        let error = compile(&document("SCMP_ACT_ALLOW", rules)).unwrap_err();
        (error.place, error.mistake)
    };
    assert_eq!(
        bad("SCMP_ACT_X", &[]),
        (
            "syscalls[1].action".to_owned(),
            Mistake::Action("SCMP_ACT_X".to_owned())
        )
    );
    assert_eq!(
        bad("SCMP_ACT_ALLOW", &[(6, "SCMP_CMP_EQ", 0, 0)]),
        ("syscalls[1].args[0].index".to_owned(), Mistake::Argument(6))
    );
    assert_eq!(
        bad("SCMP_ACT_ALLOW", &[(0, "X", 0, 0)]),
        (
            "syscalls[1].args[0].op".to_owned(),
            Mistake::Comparison("X".to_owned())
        )
    );
    let unknown = vec![rule(&["no_such_call"], "SCMP_ACT_ERRNO", &[])];
    compile(&document("SCMP_ACT_ALLOW", unknown)).unwrap();
}

#[test]
fn notifications_need_somebody_who_answers() {
    let refused = |document: &Seccomp| super::filter(document, None).unwrap_err().to_string();
    let mut asks = document("SCMP_ACT_ALLOW", vec![rule(&["mkdir"], "SCMP_ACT_NOTIFY", &[])]);
    assert!(refused(&asks).contains("listenerPath"));
    asks.listener_path = Some("/run/agent.sock".to_owned());
    let program = super::filter(&asks, None).unwrap().program;
    assert_eq!(native(&program, "mkdir", [0; 6]), 0x7fc0_0000);
    asks.syscalls[0].names.push("sendmsg".to_owned());
    assert!(refused(&asks).contains("sendmsg"));
    asks.syscalls.clear();
    asks.default_action = "SCMP_ACT_NOTIFY".to_owned();
    assert!(refused(&asks).contains("every system call"));
}
