//! `hello-berth`: the image that needs no registry, so that an engine can be tried where none can be reached.
//!
//! Its one file is a program of a few hundred bytes: an ELF header (elf(5)), one loadable segment, and two
//! system calls, `write` and `exit`. It is put together here rather than carried as bytes nobody can read.

use spec::Reference;

const NAME: &str = "docker.io/library/hello-berth";

const MESSAGE: &str = "\
Hello from Berth!

This text was written by a process in a container: it has its own file system, network, host name
and process numbers, and came from an image the engine carries with it.

Try next:
  berth run -it --rm debian:12 bash    an image from a registry
  berth build -t app .                 an image from a Dockerfile
  berth ps -a                          what there is
";

/// Where the segment is mapped; any address below the usual ones serves.
const BASE: u64 = 0x40_0000;
/// ELF header and one program header.
const HEADERS: u64 = 64 + 56;

/// Whether a name means the built-in image.
pub(crate) fn is_hello(reference: &Reference) -> bool {
    reference.name() == NAME && reference.digest().is_none() && reference.tag().is_none_or(|t| t == "latest")
}

/// The image's root filesystem as a tar archive.
pub(crate) fn archive() -> std::io::Result<Vec<u8>> {
    let program = program(MESSAGE.as_bytes());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "hello", program.as_slice())?;
    archive.into_inner()
}

/// Machine code that writes `length` bytes at `address` to standard output and ends, with its ELF machine number.
#[cfg(target_arch = "x86_64")]
fn code(address: u64, length: u32) -> (Vec<u8>, u16) {
    let mut code = vec![0xb8, 1, 0, 0, 0]; // mov eax, 1 (write)
    code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1
    code.extend([0x48, 0xbe]); // mov rsi, address
    code.extend(address.to_le_bytes());
    code.push(0xba); // mov edx, length
    code.extend(length.to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]); // mov eax, 60 (exit); xor edi, edi; syscall
    (code, 62)
}

#[cfg(target_arch = "aarch64")]
fn code(address: u64, length: u32) -> (Vec<u8>, u16) {
    let movz = |register: u32, value: u32, shift: u32| {
        0xd280_0000 | (shift << 21) | ((value & 0xffff) << 5) | register
    };
    let movk = |register: u32, value: u32, shift: u32| {
        0xf280_0000 | (shift << 21) | ((value & 0xffff) << 5) | register
    };
    let (low, high) = (address as u32, (address >> 16) as u32);
    let words = [
        movz(0, 1, 0),   // x0 = 1
        movz(1, low, 0), // x1 = address
        movk(1, high, 1),
        movz(2, length, 0), // x2 = length
        movz(8, 64, 0),     // write
        0xd400_0001,        // svc 0
        movz(0, 0, 0),
        movz(8, 93, 0), // exit
        0xd400_0001,
    ];
    (words.iter().flat_map(|w: &u32| w.to_le_bytes()).collect(), 183)
}

fn program(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(0);
    let size = code(0, 0).0.len() as u64;
    let (code, machine) = code(BASE + HEADERS + size, length);
    let total = HEADERS + size + u64::from(length);
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2u16.to_le_bytes()); // executable
    elf.extend(machine.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes()); // no section headers
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes()); // load
    elf.extend(5u32.to_le_bytes()); // read and execute
    for word in [0, BASE, BASE, total, total, 0x1000] {
        elf.extend(u64::to_le_bytes(word));
    }
    elf.extend(code);
    elf.extend(message);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello");
        std::fs::write(&path, program(MESSAGE.as_bytes())).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = std::process::Command::new(&path).output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), MESSAGE);
    }

    #[test]
    fn only_its_own_name() {
        let is = |text: &str| is_hello(&Reference::parse_normalized(text).unwrap());
        assert!(is("hello-berth") && is("hello-berth:latest"));
        assert!(!is("hello-berth:2") && !is("x.example/hello-berth"));
    }
}
