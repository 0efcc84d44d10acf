//! Kernels that touch what is not theirs.
//!
//! A page fault inside a kernel is noted, and the page opened until the kernel ends, as if it were there: a GPU goes
//! on, too, and reports later. Any other fault goes to whoever handled them before.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use libc::{PROT_READ, PROT_WRITE, c_int, c_void, sigaction, siginfo_t};

use crate::page;

/// Pages that one kernel may open before it is stopped for good.
const MOST: usize = 4096;

static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
/// Whether a kernel runs.
static RUNNING: AtomicBool = AtomicBool::new(false);
/// Address of the first fault of this kernel.
static FIRST: AtomicUsize = AtomicUsize::new(0);
/// The pages opened by faults of this kernel.
static PAGES: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
static OPENED: AtomicUsize = AtomicUsize::new(0);
/// Who handled faults before.
static mut BEFORE: std::mem::MaybeUninit<sigaction> = std::mem::MaybeUninit::uninit();

/// Watches addresses from now on.
pub fn watch(start: usize, end: usize) {
    START.store(start, SeqCst);
    END.store(end, SeqCst);
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and calls nothing but what a signal
        // handler may; `BEFORE` is written once, before the handler can read it.
        unsafe {
            let mut action: sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(libc::SIGSEGV, std::ptr::null(), (&raw mut BEFORE).cast());
            libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
        }
    });
}

/// Runs a kernel; the first address that it touched without a right to, if it did.
pub fn guarded(kernel: impl FnOnce()) -> Option<usize> {
    FIRST.store(0, SeqCst);
    OPENED.store(0, SeqCst);
    RUNNING.store(true, SeqCst);
    kernel();
    RUNNING.store(false, SeqCst);
    for opened in &PAGES[..OPENED.load(SeqCst)] {
        page::close(opened.load(SeqCst), page::SIZE);
    }
    Some(FIRST.load(SeqCst)).filter(|&address| address != 0)
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the system hands over what SA_SIGINFO promises.
    let address = unsafe { (*info).si_addr() } as usize;
    let ours = (START.load(SeqCst)..END.load(SeqCst)).contains(&address);
    let n = OPENED.load(SeqCst);
    if ours && RUNNING.load(SeqCst) && n < MOST {
        let at = address / page::SIZE * page::SIZE;
        // SAFETY: a page of the card's, which nothing is behind.
        let opened = unsafe { libc::mprotect(at as *mut _, page::SIZE, PROT_READ | PROT_WRITE) };
        if opened == 0 {
            PAGES[n].store(at, SeqCst);
            OPENED.store(n + 1, SeqCst);
            let _ = FIRST.compare_exchange(0, address, SeqCst, SeqCst);
            return;
        }
    }
    let words: &[u8] = if RUNNING.load(SeqCst) {
        b"cuda stand-in: a kernel touches memory that is not the card's\n"
    } else if ours {
        b"cuda stand-in: the program touches the card's memory itself\n"
    } else {
        b""
    };
    // SAFETY: `write` and `sigaction` may be called here; the fault comes again once this returns, and goes to
    // whoever handled it before.
    unsafe {
        libc::write(2, words.as_ptr().cast(), words.len());
        libc::sigaction(signal, (&raw const BEFORE).cast(), std::ptr::null_mut());
    }
}
