//! Launches: what a GPU would refuse, and what it would run into.

use std::ffi::c_void;

use crate::card::{Card, Code, Failure, Outcome};
use crate::fault;
use crate::kernels::{Kernel, engine_threads};

/// Blocks and threads, in each direction.
#[derive(Clone, Copy)]
pub struct Size {
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory that the launch asks for.
    pub shared: u32,
}

/// Limits of every GPU since compute capability 3.0.
const GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
const BLOCK: [u32; 3] = [1024, 1024, 64];
const THREADS: u32 = 1024;
/// Without asking for more.
const SHARED: u32 = 48 << 10;

/// Runs a kernel, or says why a GPU would not.
///
/// # Safety
/// `args` points to as many pointers as the kernel has arguments, each to one of its type.
pub unsafe fn launch(
    card: &mut Card,
    kernel: Kernel,
    size: Size,
    args: *const *mut c_void,
) -> Outcome {
    check_size(&kernel, size)?;
    // SAFETY: as the caller promises.
    unsafe { check_pointers(card, &kernel, args)? };
    let counts = match kernel {
        Kernel::Engine { .. } => &mut card.report.kernels,
        Kernel::Candle { .. } => &mut card.report.candle,
    };
    *counts.entry(kernel.name()).or_default() += 1;
    if card.faulty.as_deref() == Some(kernel.name()) {
        card.broken = true;
        return Ok(());
    }
    if !card.memory.backed {
        return Ok(());
    }
    // SAFETY: as the caller promises; whatever else it touches is found.
    let touched = fault::guarded(|| unsafe { kernel.run(size.grid[0] as usize, args) });
    match touched {
        None => Ok(()),
        Some(address) => {
            let why = match card.memory.check(address, 1) {
                Err(bad) => bad.to_string(),
                Ok(()) => "nobody may touch it".into(),
            };
            let words = format!("{} touches {address:#x}: {why}", kernel.name());
            Err(Failure(Code::IllegalAddress, words))
        }
    }
}

fn check_size(kernel: &Kernel, size: Size) -> Outcome {
    let Size {
        grid,
        block,
        shared,
    } = size;
    let most_threads = match kernel {
        Kernel::Engine { .. } => engine_threads(),
        Kernel::Candle { .. } => THREADS,
    };
    let within = |sizes: [u32; 3], limits: [u32; 3]| {
        let mut both = sizes.into_iter().zip(limits);
        both.all(|(size, limit)| (1..=limit).contains(&size))
    };
    let threads: u64 = block.iter().map(|&n| u64::from(n)).product();
    let plain = match kernel {
        Kernel::Engine { .. } => {
            grid[1..] == [1, 1] && block[1..] == [1, 1] && block[0].is_power_of_two()
        }
        Kernel::Candle { .. } => true,
    };
    let fits = within(grid, GRID) && within(block, BLOCK) && threads <= u64::from(most_threads);
    if fits && plain && shared <= SHARED {
        return Ok(());
    }
    let words = format!(
        "{} cannot be launched with a grid of {grid:?}, blocks of {block:?} and {shared} bytes of shared memory",
        kernel.name()
    );
    Err(Failure(Code::InvalidValue, words))
}

/// # Safety
/// As of [`launch`].
unsafe fn check_pointers(card: &Card, kernel: &Kernel, args: *const *mut c_void) -> Outcome {
    let check = |which: String, address: usize| match address {
        0 => Ok(()),
        _ => card.must_have(&format!("{}: {which}", kernel.name()), address, 1),
    };
    match kernel {
        Kernel::Engine { pointers, .. } => {
            for (name, offset) in pointers.iter() {
                // SAFETY: the struct has a pointer there.
                let address = unsafe { *(*args).byte_add(offset).cast::<usize>() };
                check(name.into(), address)?;
            }
        }
        Kernel::Candle { args: kinds, .. } => {
            for (i, _) in kinds.bytes().enumerate().filter(|&(_, kind)| kind == b'p') {
                // SAFETY: this argument is a pointer.
                let address = unsafe { *(*args.add(i)).cast::<usize>() };
                check(format!("argument {i}"), address)?;
            }
        }
    }
    Ok(())
}
