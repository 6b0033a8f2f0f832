//! Flags as Docker's client reads them (the GNU style of Go's pflag), described as data.
//!
//! A command names its flags in tables; `parse` reads an argument list against them, `help` prints them, and
//! `completion` writes shell scripts from them. Why not a general library: Docker's grammar has corners that scripts
//! rely on (`--rm=false`, `-it`, `-p80:80`, flags of `run` stop at the image, the wording and exit code of errors),
//! and parsing must cost microseconds.

pub mod completion;
pub mod help;
pub mod parse;

pub use parse::Matches;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// May stand alone.
    Bool,
    /// One value; the last one wins.
    Text,
    /// May be given several times.
    List,
    Int,
    Uint16,
    Duration,
    /// A size in bytes.
    Bytes,
    /// A count of CPUs.
    Cpus,
}

/// Checks a value while flags are read; the error becomes `invalid argument "…" for "…" flag: …`.
pub type Check = fn(&str) -> Result<(), String>;

#[derive(Clone, Copy)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub about: &'static str,
    /// The word for the value in help.
    pub value: &'static str,
    /// Shown in help, and for Bool the value when the flag is absent.
    pub default: &'static str,
    pub check: Option<Check>,
    pub hidden: bool,
}

impl Flag {
    const fn new(long: &'static str, kind: Kind, value: &'static str, about: &'static str) -> Flag {
        Flag {
            long,
            short: None,
            kind,
            about,
            value,
            default: "",
            check: None,
            hidden: false,
        }
    }
    pub const fn bool(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::Bool, "", about)
    }
    pub const fn text(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::Text, "string", about)
    }
    pub const fn list(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::List, "list", about)
    }
    pub const fn int(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::Int, "int", about)
    }
    pub const fn duration(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::Duration, "duration", about)
    }
    pub const fn bytes(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::Bytes, "bytes", about)
    }
    pub const fn cpus(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::Cpus, "decimal", about)
    }
    pub const fn uint16(long: &'static str, about: &'static str) -> Flag {
        Flag::new(long, Kind::Uint16, "uint16", about)
    }
    pub const fn short(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }
    pub const fn value(mut self, value: &'static str) -> Flag {
        self.value = value;
        self
    }
    pub const fn default(mut self, default: &'static str) -> Flag {
        self.default = default;
        self
    }
    pub const fn check(mut self, check: Check) -> Flag {
        self.check = Some(check);
        self
    }
    pub const fn hidden(mut self) -> Flag {
        self.hidden = true;
        self
    }

    /// How errors name the flag: `-e, --env`.
    pub fn name(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}
