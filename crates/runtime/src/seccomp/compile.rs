//! The compiler: rules by name to a decision tree by number.
//!
//! Per architecture the numbers fall into ranges with the same outcome; a balanced tree of comparisons finds the
//! range, so that a call costs about ten instructions however long the list is. Rules with argument conditions
//! are chains at the leaves.
//!
//! Where several rules for one call match, the strictest action wins. An unconditional rule is one that always
//! matches. Names that an architecture does not have are skipped. Numbers above the highest one that the profile
//! names are answered with ENOSYS unless the default lets calls through: a program that tries a call newer than
//! the profile falls back to an older one, as on an older kernel. A call of an architecture that the document
//! does not list ends the process.

use std::collections::BTreeMap;

use spec::runtime::{Seccomp, SeccompArg};
use sys::seccomp::{Instruction, MAX_INSTRUCTIONS};

use super::action::{self, ALLOW, KILL_PROCESS, NO_SUCH_CALL};
use super::architecture::{Architecture, X32_BIT};
use super::program::{JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, Label, Program};
use super::{Mistake, SeccompError};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What is decided about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Always(u32),
    /// Conditional rules, the strictest first, and what holds when none matches.
    Depends(Vec<Rule>, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    conditions: Vec<Condition>,
    action: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    argument: u32,
    comparison: Comparison,
    value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// With the mask.
    Masked(u64),
}

/// The program of a document for this machine.
pub fn compile(document: &Seccomp) -> Result<Vec<Instruction>, SeccompError> {
    let default = action::parse(&document.default_action, document.default_errno_ret)
        .map_err(|mistake| of_action(mistake, "defaultAction", "defaultErrnoRet"))?;
    let mut architectures = vec![Architecture::NATIVE];
    for (index, name) in document.architectures.iter().enumerate() {
        let known = Architecture::parse(name);
        if let Some(architecture) = known.map_err(|mistake| mistake.at(format!("architectures[{index}]")))? {
            architectures.push(architecture);
        }
    }
    architectures.sort_unstable();
    architectures.dedup();

    let rules = parse_rules(document)?;
    let mut program = Program::default();
    let refuse = program.give_back(KILL_PROCESS);
    let mut entry = refuse;
    // Written backwards: the native architecture, first in the list, is asked for first.
    let x32 = architectures.contains(&Architecture::X32);
    for architecture in architectures.iter().rev().filter(|a| **a != Architecture::X32) {
        // Its last instruction stands right behind the load of the number.
        match architecture {
            Architecture::X86_64 => {
                let above = if x32 {
                    let ranges = ranges(&rules, Architecture::X32, default);
                    tree(&mut program, &ranges)
                } else {
                    program.give_back(KILL_PROCESS)
                };
                let ranges = ranges(&rules, Architecture::X86_64, default);
                let below = tree(&mut program, &ranges);
                program.branch(JUMP_GREATER_OR_EQUAL, X32_BIT, above, below);
            }
            other => {
                let ranges = ranges(&rules, *other, default);
                let top = tree(&mut program, &ranges);
                program.go_to(top);
            }
        }
        let start = program.load(NUMBER);
        entry = program.branch(JUMP_EQUAL, architecture.audit(), start, entry);
    }
    program.go_to(entry);
    program.load(ARCHITECTURE);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Mistake::TooLong(program.len()).at("syscalls"));
    }
    Ok(program.finish())
}

/// By name, each with its rules in the document's order.
fn parse_rules(document: &Seccomp) -> Result<BTreeMap<&str, Vec<Rule>>, SeccompError> {
    let mut rules: BTreeMap<&str, Vec<Rule>> = BTreeMap::new();
    for (index, entry) in document.syscalls.iter().enumerate() {
        let place = format!("syscalls[{index}]");
        let action = action::parse(&entry.action, entry.errno_ret).map_err(|mistake| {
            of_action(mistake, &format!("{place}.action"), &format!("{place}.errnoRet"))
        })?;
        let conditions = entry
            .args
            .iter()
            .enumerate()
            .map(|(number, arg)| condition(arg, &format!("{place}.args[{number}]")))
            .collect::<Result<Vec<_>, _>>()?;
        // Several conditions on one argument cannot all be meant; each is taken as a rule of its own.
        let repeated = conditions.iter().enumerate().any(|(place, one)| {
            conditions
                .iter()
                .take(place)
                .any(|other| other.argument == one.argument)
        });
        for name in &entry.names {
            let list = rules.entry(name).or_default();
            if repeated {
                list.extend(conditions.iter().map(|one| Rule {
                    conditions: vec![*one],
                    action,
                }));
            } else {
                list.push(Rule {
                    conditions: conditions.clone(),
                    action,
                });
            }
        }
    }
    Ok(rules)
}

/// An action and the number that goes with it stand in two places.
fn of_action(mistake: Mistake, action: &str, errno: &str) -> SeccompError {
    let place = if matches!(mistake, Mistake::Errno(_)) {
        errno
    } else {
        action
    };
    mistake.at(place)
}

fn condition(arg: &SeccompArg, place: &str) -> Result<Condition, SeccompError> {
    if arg.index > 5 {
        return Err(Mistake::Argument(arg.index).at(format!("{place}.index")));
    }
    let (comparison, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, arg.value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, arg.value),
        "SCMP_CMP_GT" => (Comparison::Greater, arg.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, arg.value),
        "SCMP_CMP_LT" => (Comparison::Less, arg.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, arg.value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(arg.value), arg.value_two & arg.value),
        other => {
            return Err(Mistake::Comparison(other.to_owned()).at(format!("{place}.op")));
        }
    };
    Ok(Condition {
        argument: arg.index,
        comparison,
        value,
    })
}

/// The outcome of a call from its rules.
fn outcome(rules: &[Rule], narrow: bool, default: u32) -> Outcome {
    let mut conditional: Vec<Rule> = Vec::new();
    let mut otherwise: Option<u32> = None;
    for rule in rules {
        if rule.conditions.is_empty() {
            let stricter =
                otherwise.is_none_or(|known| action::strictness(rule.action) < action::strictness(known));
            if stricter {
                otherwise = Some(rule.action);
            }
        } else {
            let mut rule = rule.clone();
            if narrow {
                for condition in &mut rule.conditions {
                    condition.value &= u64::from(u32::MAX);
                    if let Comparison::Masked(mask) = &mut condition.comparison {
                        *mask &= u64::from(u32::MAX);
                    }
                }
            }
            conditional.push(rule);
        }
    }
    if let Some(always) = otherwise {
        conditional.retain(|rule| action::strictness(rule.action) < action::strictness(always));
    }
    let otherwise = otherwise.unwrap_or(default);
    if conditional.is_empty() {
        return Outcome::Always(otherwise);
    }
    conditional.sort_by_key(|rule| action::strictness(rule.action));
    Outcome::Depends(conditional, otherwise)
}

/// Every number's outcome, as the beginnings of ranges in ascending order; the first begins at the lowest number.
fn ranges(
    rules: &BTreeMap<&str, Vec<Rule>>,
    architecture: Architecture,
    default: u32,
) -> Vec<(u32, Outcome)> {
    let base = if architecture == Architecture::X32 {
        X32_BIT
    } else {
        0
    };
    let mut numbered: BTreeMap<u32, Outcome> = BTreeMap::new();
    for (name, rules) in rules {
        if let Some(number) = architecture.number(name) {
            numbered.insert(base + number, outcome(rules, architecture.narrow(), default));
        }
    }
    let beyond = if action::lets_through(default) {
        default
    } else {
        NO_SUCH_CALL
    };
    let mut out: Vec<(u32, Outcome)> = Vec::new();
    let mut add = |start: u32, outcome: Outcome| {
        if out.last().is_none_or(|(_, last)| *last != outcome) {
            out.push((start, outcome));
        }
    };
    let mut next = base;
    for (number, outcome) in numbered {
        if number > next {
            add(next, Outcome::Always(default));
        }
        add(number, outcome);
        next = number + 1;
    }
    add(next, Outcome::Always(beyond));
    if let Some(first) = out.first_mut() {
        first.0 = base;
    }
    out
}

/// A balanced tree over the ranges. Its entry, with the number loaded, is the label given back.
fn tree(program: &mut Program, ranges: &[(u32, Outcome)]) -> Label {
    match ranges {
        [] => program.give_back(ALLOW),
        [(_, outcome)] => leaf(program, outcome),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let border = high.first().map_or(0, |(start, _)| *start);
            let upper = tree(program, high);
            let lower = tree(program, low);
            program.branch(JUMP_GREATER_OR_EQUAL, border, upper, lower)
        }
    }
}

fn leaf(program: &mut Program, outcome: &Outcome) -> Label {
    match outcome {
        Outcome::Always(action) => program.give_back(*action),
        Outcome::Depends(rules, otherwise) => {
            let mut next = program.give_back(*otherwise);
            for rule in rules.iter().rev() {
                let mut matched = program.give_back(rule.action);
                for condition in rule.conditions.iter().rev() {
                    matched = compare(program, *condition, matched, next);
                }
                next = matched;
            }
            next
        }
    }
}

/// One condition in front of what has been written: 64 bits in two halves.
fn compare(program: &mut Program, condition: Condition, yes: Label, no: Label) -> Label {
    let low = condition.value as u32;
    let high = (condition.value >> 32) as u32;
    let low_at = ARGUMENTS + condition.argument * 8;
    let high_at = low_at + 4;
    match condition.comparison {
        Comparison::Equal => {
            program.branch(JUMP_EQUAL, low, yes, no);
            let low = program.load(low_at);
            program.branch(JUMP_EQUAL, high, low, no);
        }
        Comparison::NotEqual => {
            program.branch(JUMP_EQUAL, low, no, yes);
            let low = program.load(low_at);
            program.branch(JUMP_EQUAL, high, low, yes);
        }
        Comparison::Greater => return ordered(program, condition, JUMP_GREATER, yes, no),
        Comparison::GreaterOrEqual => return ordered(program, condition, JUMP_GREATER_OR_EQUAL, yes, no),
        Comparison::Less => return ordered_less(program, condition, JUMP_GREATER_OR_EQUAL, yes, no),
        Comparison::LessOrEqual => return ordered_less(program, condition, JUMP_GREATER, yes, no),
        Comparison::Masked(mask) => {
            program.branch(JUMP_EQUAL, low, yes, no);
            program.and(mask as u32);
            let low = program.load(low_at);
            program.branch(JUMP_EQUAL, high, low, no);
            program.and((mask >> 32) as u32);
        }
    }
    program.load(high_at)
}

fn ordered(program: &mut Program, condition: Condition, code: u16, yes: Label, no: Label) -> Label {
    let low_at = ARGUMENTS + condition.argument * 8;
    program.branch(code, condition.value as u32, yes, no);
    let low = program.load(low_at);
    let high = (condition.value >> 32) as u32;
    let equal = program.branch(JUMP_EQUAL, high, low, no);
    program.branch(JUMP_GREATER, high, yes, equal);
    program.load(low_at + 4)
}

/// `a < b` is `not (a >= b)`.
fn ordered_less(program: &mut Program, condition: Condition, code: u16, yes: Label, no: Label) -> Label {
    ordered(program, condition, code, no, yes)
}
