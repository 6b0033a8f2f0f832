//! Giving memory back that a process needed only in the beginning.
//!
//! Freed heap and the stack's former depth stay with a process until it is asked to let go. For a process that does a
//! lot once and then waits for months, as a container's monitor does, that is most of its size.
//! Source: malloc_trim(3), mallopt(3), madvise(2).

/// How far below the present stack pointer nothing is given back: the frames of the calls made here.
const MARGIN: usize = 16 * 1024;
/// Gives unused pages of all heaps back to the kernel. For any thread; nothing fails.
pub fn release_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator only hands free pages back; no live allocation is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives unused heap pages and the unused part of the calling thread's stack back to the kernel. Only for the main
/// thread. What cannot be given back stays; nothing fails.
pub fn release_unused() {
    release_heaps();
    if let Some((low, high)) = stack() {
        let here = 0u8;
        let end = whole_pages((&raw const here).addr().saturating_sub(MARGIN));
        if low < end && end < high {
            // SAFETY: [low, end) lies in the main thread's stack, well below every live frame; the kernel gives fresh
            // zeroed pages when the stack grows there again.
            unsafe {
                libc::madvise(
                    std::ptr::without_provenance_mut(low),
                    end - low,
                    libc::MADV_DONTNEED,
                );
            }
        }
    }
}

// The linker's names for where the program begins in memory and where its code ends; constants come before the code.
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// Takes the pages of code and constants that were used so far out of this process, for one that goes on with other
/// code. They stay in the page cache, and each comes back when it is used again. Nothing fails.
pub fn release_code() {
    let start = (&raw const __executable_start).addr();
    let end = whole_pages((&raw const etext).addr());
    if start < end {
        // SAFETY: [start, end) is mapped from the program's file, private, read-only and never written (the program is
        // linked to a fixed place, so the loader changes nothing in it): what is given back is read again from the file.
        unsafe {
            libc::madvise(
                std::ptr::without_provenance_mut(start),
                end - start,
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// Has all threads take their memory from at most `count` heaps. The allocator gives each thread one of its own
/// otherwise, up to eight for each processor, and what one thread frees is of no use to the others. To be called before
/// there are threads; an allocator that has no such setting goes on as it does.
pub fn share_heaps(count: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number that is read when the next heap would be made.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, count);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// The start of the page that `address` lies in.
fn whole_pages(address: usize) -> usize {
    // SAFETY: asks for a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // No machine has larger pages than 64 KiB; a multiple of them is one of every size.
    let size = usize::try_from(size).unwrap_or(64 << 10);
    address & !(size - 1)
}

/// Bounds of the main thread's stack as it is mapped now.
fn stack() -> Option<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    let (low, high) = line.split(' ').next()?.split_once('-')?;
    Some((
        usize::from_str_radix(low, 16).ok()?,
        usize::from_str_radix(high, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of files that are in this process.
    fn resident_of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn code_goes_and_comes_back() {
        let before = resident_of_files();
        release_code();
        let after = resident_of_files();
        assert!(after < before, "{before} kB before, {after} kB after");
    }

    #[test]
    fn live_memory_is_not_touched() {
        let kept: Vec<u64> = (0..100_000).collect();
        drop((0..1_000_000u64).collect::<Vec<_>>());
        release_unused();
        assert!(kept.iter().copied().eq(0..100_000));
    }
}
