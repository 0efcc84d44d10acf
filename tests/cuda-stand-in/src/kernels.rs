//! Kernels by name: the engine's, and what is left of candle's.

use std::ffi::{CStr, c_char, c_uint, c_ulong, c_void};

/// As in `kernels.c`.
#[repr(C)]
struct EngineRow {
    name: *const c_char,
    run: Option<unsafe extern "C" fn()>,
    pointers: *const PointerRow,
}

/// As in `kernels.c`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PointerRow {
    name: *const c_char,
    offset: c_ulong,
}

/// As in `candle.c`.
#[repr(C)]
struct CandleRow {
    name: *const c_char,
    args: *const c_char,
    run: Option<unsafe extern "C" fn(*const *mut c_void)>,
}

unsafe extern "C" {
    static engine_kernels: [EngineRow; 0];
    static engine_max_threads: c_uint;
    static candle_kernels: [CandleRow; 0];
    fn run_blocks(kernel: unsafe extern "C" fn(), args: *const c_void, blocks: i64);
}

/// A kernel that can be launched.
#[derive(Clone, Copy)]
pub enum Kernel {
    /// One of `kernels.cu`.
    Engine {
        /// Its name.
        name: &'static str,
        /// Its code.
        run: unsafe extern "C" fn(),
        /// The pointers of the struct that it takes.
        pointers: Pointers,
    },
    /// One of candle's.
    Candle {
        /// Its name.
        name: &'static str,
        /// A letter for each argument: `p` for a pointer.
        args: &'static str,
        /// Its code.
        run: unsafe extern "C" fn(*const *mut c_void),
    },
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Kernel::Engine { name, .. } | Kernel::Candle { name, .. } => name,
        }
    }

    /// Runs it.
    ///
    /// # Safety
    /// `args` points to as many pointers as it has arguments, each to one of its type.
    pub unsafe fn run(&self, blocks: usize, args: *const *mut c_void) {
        match self {
            // SAFETY: it has one argument, the struct that the kernel takes.
            Kernel::Engine { run, .. } => unsafe { run_blocks(*run, *args, blocks as i64) },
            // SAFETY: as the caller promises.
            Kernel::Candle { run, .. } => unsafe { run(args) },
        }
    }
}

/// The pointers of the struct that a kernel of the engine takes.
#[derive(Clone, Copy)]
pub struct Pointers(*const PointerRow);

impl Pointers {
    /// Name, and offset in the struct, of each.
    pub fn iter(self) -> impl Iterator<Item = (&'static str, usize)> {
        let mut row = self.0;
        std::iter::from_fn(move || {
            // SAFETY: the table ends with a row without a name, and lives as long as the library.
            unsafe {
                let PointerRow { name, offset } = *row;
                if name.is_null() {
                    return None;
                }
                row = row.add(1);
                Some((text(name), offset as usize))
            }
        })
    }
}

/// The kernel of a name.
pub fn named(wanted: &str) -> Option<Kernel> {
    // SAFETY: both tables end with a row without a name, and live as long as the library.
    unsafe {
        let mut row = (&raw const engine_kernels).cast::<EngineRow>();
        while let Some(run) = (*row).run {
            let name = text((*row).name);
            if name == wanted {
                let pointers = Pointers((*row).pointers);
                return Some(Kernel::Engine {
                    name,
                    run,
                    pointers,
                });
            }
            row = row.add(1);
        }
        let mut row = (&raw const candle_kernels).cast::<CandleRow>();
        while let Some(run) = (*row).run {
            let (name, args) = (text((*row).name), text((*row).args));
            if name == wanted {
                return Some(Kernel::Candle { name, args, run });
            }
            row = row.add(1);
        }
    }
    None
}

/// Most threads of a block of the engine's kernels.
pub fn engine_threads() -> u32 {
    // SAFETY: a constant.
    unsafe { engine_max_threads }
}

/// # Safety
/// It is a text of the tables.
unsafe fn text(text: *const c_char) -> &'static str {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or_default()
}
