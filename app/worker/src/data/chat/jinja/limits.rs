//! How large and deep a template may be, and how much work it may do.
//!
//! minijinja counts work (fuel): an instruction, or 64 bytes made. That bounds time and memory. What it does not
//! bound is how deeply values and expressions nest, each level of which takes stack: so templates are compiled and
//! rendered on a stack that is large enough for the deepest that the limits allow.

use std::cell::Cell;
use std::thread;

/// Bytes of a template; the largest that models come with have 40 thousand.
pub(crate) const SOURCE: usize = 256 << 10;

/// Work of one rendering. The templates of models do some thousands for a conversation of ten turns.
pub(super) const FUEL: u64 = 2_000_000;

/// Characters that a filter or method may fill a text with at a word of its arguments.
pub(super) const WIDTH: usize = 10_000;

/// Levels of lists and dicts that `tojson` writes; Python stops at about as many.
pub(super) const DEPTH: usize = 500;

/// Bytes of one tag or expression, texts in it left out: minijinja compiles one in the square of its depth.
pub(crate) const CODE: usize = 8 << 10;

/// Bytes of the stack. A level of an expression or a chain of `elif` takes up to 500 bytes to compile, of which
/// [`SOURCE`] holds at most one a byte; a level of a value takes up to 480 to compare or drop, of which [`FUEL`]
/// makes at most two for three units. Only what is used is taken from the machine.
const STACK: usize = 704 << 20;

thread_local! {
    static DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a stack that is deep enough for templates: this one where it is.
///
/// # Errors
/// Where the machine gives no such thread.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    if DEEP.get() {
        return Ok(work());
    }
    thread::scope(|scope| {
        let run = || {
            DEEP.set(true);
            work()
        };
        let thread = thread::Builder::new().stack_size(STACK);
        let joined = thread.spawn_scoped(scope, run)?.join();
        joined.or_else(|panic| std::panic::resume_unwind(panic))
    })
}
