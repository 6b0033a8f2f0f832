//! Writing a classic BPF program from its end to its beginning.
//!
//! Jumps go forward only, so a program written backwards knows every target when it needs it. A conditional
//! jump reaches 255 instructions; a target that is farther gets a stepping stone right behind the jump: the
//! same `return` once more when it is one, else an unconditional jump, which reaches anywhere.

use std::collections::HashMap;

use sys::seccomp::Instruction;

pub(crate) const LOAD: u16 = 0x20;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const JUMP_EQUAL: u16 = 0x15;
pub(crate) const JUMP_GREATER: u16 = 0x25;
pub(crate) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(crate) const AND: u16 = 0x54;
pub(crate) const RETURN: u16 = 0x06;

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Two stepping stones may lie between a jump and a target that was within reach before them.
const REACH: usize = 250;

#[derive(Debug, Default)]
pub(crate) struct Program {
    reversed: Vec<Instruction>,
    returns: HashMap<u32, Label>,
}

impl Program {
    fn push(&mut self, code: u16, jump_true: u8, jump_false: u8, value: u32) -> Label {
        self.reversed.push(Instruction {
            code,
            jump_true,
            jump_false,
            value,
        });
        Label(self.reversed.len() - 1)
    }

    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    /// The latest `return` of this value.
    pub fn give_back(&mut self, value: u32) -> Label {
        match self.returns.get(&value) {
            Some(label) => *label,
            None => self.new_return(value),
        }
    }

    fn new_return(&mut self, value: u32) -> Label {
        let label = self.push(RETURN, 0, 0, value);
        self.returns.insert(value, label);
        label
    }

    pub fn load(&mut self, offset: u32) -> Label {
        self.push(LOAD, 0, 0, offset)
    }

    pub fn and(&mut self, mask: u32) -> Label {
        self.push(AND, 0, 0, mask)
    }

    /// A conditional jump in front of what has been written.
    pub fn branch(&mut self, code: u16, value: u32, yes: Label, no: Label) -> Label {
        let no = self.near(no);
        let yes = self.near(yes);
        let (yes, no) = (self.distance(yes), self.distance(no));
        // `near` keeps both below 256.
        self.push(
            code,
            u8::try_from(yes).unwrap_or(u8::MAX),
            u8::try_from(no).unwrap_or(u8::MAX),
            value,
        )
    }

    /// Continues at `target` from here.
    pub fn go_to(&mut self, target: Label) -> Label {
        match self.distance(target) {
            0 => target,
            distance => self.push(JUMP, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX)),
        }
    }

    fn near(&mut self, target: Label) -> Label {
        if self.distance(target) <= REACH {
            return target;
        }
        match self.reversed.get(target.0) {
            Some(Instruction {
                code: RETURN, value, ..
            }) => {
                let value = *value;
                self.new_return(value)
            }
            _ => {
                let distance = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
                self.push(JUMP, 0, 0, distance)
            }
        }
    }

    pub fn len(&self) -> usize {
        self.reversed.len()
    }

    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
