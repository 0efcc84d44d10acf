//! Pages of the system's memory.

use libc::{
    MADV_DONTNEED, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_NONE, PROT_READ,
    PROT_WRITE,
};

/// Bytes of a page.
pub const SIZE: usize = 4096;

/// Reserves addresses; nobody may touch them yet.
pub fn reserve(bytes: usize) -> usize {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    // SAFETY: new pages, of addresses that the system chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, PROT_NONE, flags, -1, 0) };
    assert!(start != MAP_FAILED, "the system gives {bytes} addresses");
    start as usize
}

/// Gives reserved addresses back.
pub fn release(start: usize, bytes: usize) {
    // SAFETY: they were reserved, and their owner is gone.
    unsafe { libc::munmap(start as *mut _, bytes) };
}

/// Lets reserved pages be read and written.
pub fn open(start: usize, bytes: usize) {
    protect(start, bytes, PROT_READ | PROT_WRITE);
}

/// Takes what is in pages away; nobody may touch them any more.
pub fn close(start: usize, bytes: usize) {
    // SAFETY: pages that were reserved, whose content nobody needs.
    unsafe { libc::madvise(start as *mut _, bytes, MADV_DONTNEED) };
    protect(start, bytes, PROT_NONE);
}

fn protect(start: usize, bytes: usize, how: i32) {
    // SAFETY: pages that were reserved.
    let done = unsafe { libc::mprotect(start as *mut _, bytes, how) };
    assert_eq!(done, 0, "the system has too many pages");
}
