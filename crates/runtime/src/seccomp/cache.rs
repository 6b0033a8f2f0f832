//! Compiled filters on disk, by the digest of their document.
//!
//! The directory belongs to the engine and is not writable by others; what is read is nevertheless only bytes
//! that the kernel checks as a program. A missing, short or foreign file means: compile again. Writing is
//! best effort: a start never fails because the cache cannot be written.

use std::fs;
use std::io::Write;
use std::path::Path;

use spec::Digest;
use spec::runtime::Seccomp;
use sys::seccomp::{Instruction, MAX_INSTRUCTIONS};

use super::SeccompError;

/// Changes whenever the compiler would make another program from the same document.
const VERSION: &str = "berth-seccomp-1";

pub(crate) fn load_or_make(
    directory: &Path,
    document: &Seccomp,
    make: impl FnOnce() -> Result<Vec<Instruction>, SeccompError>,
) -> Result<Vec<Instruction>, SeccompError> {
    let Some(name) = name(document) else { return make() };
    let path = directory.join(&name);
    if let Some(program) = fs::read(&path).ok().and_then(|bytes| decode(&bytes)) {
        return Ok(program);
    }
    let program = make()?;
    store(directory, &path, &name, &program);
    Ok(program)
}

fn name(document: &Seccomp) -> Option<String> {
    let mut bytes = serde_json::to_vec(document).ok()?;
    bytes.extend_from_slice(VERSION.as_bytes());
    bytes.extend_from_slice(std::env::consts::ARCH.as_bytes());
    Some(format!("{}.bpf", Digest::sha256(&bytes).hex()))
}

fn decode(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let rest = bytes.strip_prefix(VERSION.as_bytes())?;
    let (instructions, odd) = rest.as_chunks::<8>();
    let length = instructions.len();
    (odd.is_empty() && length > 0 && length <= MAX_INSTRUCTIONS).then(|| {
        instructions
            .iter()
            .map(|bytes| Instruction::from_bytes(*bytes))
            .collect()
    })
}

fn store(directory: &Path, path: &Path, name: &str, program: &[Instruction]) {
    let mut bytes = VERSION.as_bytes().to_vec();
    bytes.extend(program.iter().flat_map(|instruction| instruction.to_bytes()));
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let written = fs::create_dir_all(directory)
        .and_then(|()| fs::File::create(&temporary))
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        tracing::debug!(%error, path = %path.display(), "compiled filter not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mistake;
    use super::*;

    #[test]
    fn kept_and_found_again_and_bad_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let document = Seccomp {
            default_action: "SCMP_ACT_ALLOW".into(),
            ..Seccomp::default()
        };
        let program = vec![Instruction {
            code: 6,
            jump_true: 0,
            jump_false: 0,
            value: 0x7fff_0000,
        }];
        let made = load_or_make(directory.path(), &document, || Ok(program.clone())).unwrap();
        assert_eq!(made, program);
        let found = load_or_make(directory.path(), &document, || Err(Mistake::Errno(0).at(""))).unwrap();
        assert_eq!(found, program);

        let file = directory.path().join(name(&document).unwrap());
        for bad in [&b""[..], b"berth-seccomp-1", b"berth-seccomp-1abc", b"other"] {
            fs::write(&file, bad).unwrap();
            let again = load_or_make(directory.path(), &document, || Ok(program.clone())).unwrap();
            assert_eq!(again, program);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
