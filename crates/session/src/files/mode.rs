//! Permissions and kinds of files as the protocol writes them: Go's `os.FileMode`, which is not what `stat` says.

use rustix::fs::FileType;

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHARACTER: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
const KINDS: u32 = DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHARACTER | IRREGULAR;

/// What a file is.
pub fn kind(mode: u32) -> FileType {
    match mode & KINDS {
        0 => FileType::RegularFile,
        DIRECTORY => FileType::Directory,
        SYMLINK => FileType::Symlink,
        FIFO => FileType::Fifo,
        SOCKET => FileType::Socket,
        DEVICE => FileType::BlockDevice,
        bits if bits & DEVICE != 0 && bits & CHARACTER != 0 => FileType::CharacterDevice,
        _ => FileType::Unknown,
    }
}

/// Permissions with the set-id and sticky bits where `chmod` has them.
pub fn permissions(mode: u32) -> u32 {
    let bit = |from: u32, to: u32| if mode & from == 0 { 0 } else { to };
    (mode & 0o777) | bit(SETUID, 0o4000) | bit(SETGID, 0o2000) | bit(STICKY, 0o1000)
}

/// The protocol's mode of a file that `stat` says `st_mode` about.
pub fn of_stat(st_mode: u32) -> u32 {
    let bit = |from: u32, to: u32| if st_mode & from == 0 { 0 } else { to };
    let kind = match FileType::from_raw_mode(st_mode) {
        FileType::RegularFile => 0,
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::Fifo => FIFO,
        FileType::Socket => SOCKET,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHARACTER,
        _ => IRREGULAR,
    };
    kind | (st_mode & 0o777) | bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_survive_the_way_there_and_back() {
        for mode in [
            0o100_644, 0o040_755, 0o120_777, 0o104_755, 0o102_755, 0o041_777, 0o010_600, 0o060_660, 0o020_620,
        ] {
            let sent = of_stat(mode);
            assert_eq!(permissions(sent), mode & 0o7777, "{mode:o}");
            assert_eq!(kind(sent), FileType::from_raw_mode(mode), "{mode:o}");
        }
        assert_eq!(kind(DIRECTORY | SYMLINK), FileType::Unknown);
    }
}
