//! The driver's entry points that a build of ours calls.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};

use crate::card::{Card, Code, Failure, Outcome, call};
use crate::kernels::{Kernel, named};
use crate::launch::{Size, launch};

/// The only context there is.
const CONTEXT: usize = 0xc0;
const NAME: &str = "Stand-in for a GPU";

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// As [`call`], on a thread that has a context.
fn in_context(name: &str, run: impl FnOnce(&mut Card) -> Outcome) -> Code {
    call(name, |card| match CURRENT.get() {
        CONTEXT => run(card),
        _ => Err(Failure(
            Code::InvalidContext,
            "the thread has no context".into(),
        )),
    })
}

/// Writes an answer where the caller wants it.
///
/// # Safety
/// It points to a place for one.
unsafe fn answer<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(Failure(
            Code::InvalidValue,
            "no place for the answer".into(),
        ));
    }
    // SAFETY: as the caller promises.
    unsafe { to.write(value) };
    Ok(())
}

fn must_be_first(device: i32) -> Outcome {
    match device {
        0 => Ok(()),
        _ => Err(Failure(
            Code::InvalidDevice,
            format!("there is no device {device}"),
        )),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_: u32) -> Code {
    call("cuInit", |_| Ok(()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut i32) -> Code {
    // SAFETY: the caller gives a place for it.
    call("cuDriverGetVersion", |_| unsafe { answer(version, 13_000) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: i32, name: *mut *const c_char) -> Code {
    let text = match code {
        0 => c"CUDA_SUCCESS",
        1 => c"CUDA_ERROR_INVALID_VALUE",
        2 => c"CUDA_ERROR_OUT_OF_MEMORY",
        100 => c"CUDA_ERROR_NO_DEVICE",
        101 => c"CUDA_ERROR_INVALID_DEVICE",
        201 => c"CUDA_ERROR_INVALID_CONTEXT",
        209 => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        222 => c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        400 => c"CUDA_ERROR_INVALID_HANDLE",
        500 => c"CUDA_ERROR_NOT_FOUND",
        700 => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        _ => c"CUDA_ERROR_UNKNOWN",
    };
    // SAFETY: the caller gives a place for it.
    unsafe { *name = text.as_ptr() };
    Code::Success
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: i32, text: *mut *const c_char) -> Code {
    let words = match code {
        2 => c"out of memory",
        500 => c"named symbol not found",
        700 => c"an illegal memory access was encountered",
        _ => c"as its name says",
    };
    // SAFETY: the caller gives a place for it.
    unsafe { *text = words.as_ptr() };
    Code::Success
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut i32) -> Code {
    // SAFETY: the caller gives a place for it.
    call("cuDeviceGetCount", |_| unsafe { answer(count, 1) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut i32, ordinal: i32) -> Code {
    call("cuDeviceGet", |_| {
        must_be_first(ordinal)?;
        // SAFETY: the caller gives a place for it.
        unsafe { answer(device, ordinal) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: i32, device: i32) -> Code {
    call("cuDeviceGetName", |_| {
        must_be_first(device)?;
        let bytes = NAME.bytes().take((len.max(1) - 1) as usize).chain([0]);
        for (i, byte) in bytes.enumerate() {
            // SAFETY: the caller gives `len` bytes.
            unsafe { *name.add(i) = byte as c_char };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: i32) -> Code {
    call("cuDeviceTotalMem", |card| {
        must_be_first(device)?;
        // SAFETY: the caller gives a place for it.
        unsafe { answer(bytes, card.memory.total) }
    })
}

/// As an H100 has them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut i32,
    attribute: i32,
    device: i32,
) -> Code {
    call("cuDeviceGetAttribute", |card| {
        must_be_first(device)?;
        let is = match attribute {
            1 => 1024,                  // MAX_THREADS_PER_BLOCK
            10 => 32,                   // WARP_SIZE
            16 => 132,                  // MULTIPROCESSOR_COUNT
            75 => card.capability / 10, // COMPUTE_CAPABILITY_MAJOR
            76 => card.capability % 10, // COMPUTE_CAPABILITY_MINOR
            115 => 1,                   // MEMORY_POOLS_SUPPORTED
            _ => {
                let words = format!("attribute {attribute} is not one that it has");
                return Err(Failure(Code::InvalidValue, words));
            }
        };
        // SAFETY: the caller gives a place for it.
        unsafe { answer(value, is) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: i32) -> Code {
    call("cuDevicePrimaryCtxRetain", |_| {
        must_be_first(device)?;
        // SAFETY: the caller gives a place for it.
        unsafe { answer(context, CONTEXT) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> Code {
    call("cuDevicePrimaryCtxRelease", |_| must_be_first(device))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> Code {
    CURRENT.set(context);
    Code::Success
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> Code {
    // SAFETY: the caller gives a place for it.
    call("cuCtxGetCurrent", |_| unsafe {
        answer(context, CURRENT.get())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Code {
    in_context("cuCtxSynchronize", |card| {
        card.waited();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _: u32) -> Code {
    // SAFETY: the caller gives a place for it.
    in_context("cuStreamCreate", |card| unsafe {
        answer(stream, card.handle())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: usize) -> Code {
    call("cuStreamDestroy", |card| {
        card.must_know("stream", stream)?;
        card.handles.remove(&stream);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> Code {
    in_context("cuStreamSynchronize", |card| {
        card.waited();
        card.must_know("stream", stream)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _: u32) -> Code {
    in_context("cuStreamWaitEvent", |card| {
        card.must_know("stream", stream)?;
        card.must_know("event", event)
    })
}

/// Nothing is ever captured.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: usize, status: *mut i32) -> Code {
    in_context("cuStreamIsCapturing", |card| {
        card.must_know("stream", stream)?;
        // SAFETY: the caller gives a place for it.
        unsafe { answer(status, 0) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, _: u32) -> Code {
    in_context("cuEventCreate", |card| {
        card.report.events += 1;
        // SAFETY: the caller gives a place for it.
        unsafe { answer(event, card.handle()) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> Code {
    in_context("cuEventRecord", |card| {
        card.must_know("event", event)?;
        card.must_know("stream", stream)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: usize) -> Code {
    in_context("cuEventSynchronize", |card| {
        card.waited();
        card.must_know("event", event)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: usize) -> Code {
    call("cuEventDestroy", |card| {
        card.must_know("event", event)?;
        card.handles.remove(&event);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    in_context("cuMemGetInfo", |card| {
        let memory = &card.memory;
        // SAFETY: the caller gives places for both.
        unsafe {
            answer(free, memory.total - memory.used)?;
            answer(total, memory.total)
        }
    })
}

fn allocate(card: &mut Card, address: *mut usize, bytes: usize) -> Outcome {
    if bytes == 0 {
        return Err(Failure(Code::InvalidValue, "nothing is allocated".into()));
    }
    let Some(at) = card.memory.allocate(bytes) else {
        let words = format!(
            "{bytes} bytes more than the {} in use are more than there is",
            card.memory.used
        );
        return Err(Failure(Code::OutOfMemory, words));
    };
    card.report.allocations.add(bytes);
    card.report.peak = card.memory.peak as u64;
    // SAFETY: the caller gives a place for it.
    unsafe { answer(address, at) }
}

fn free(card: &mut Card, address: usize) -> Outcome {
    let illegal = |words| Failure(Code::IllegalAddress, words);
    match card.memory.free(address) {
        Ok(None) => Ok(()),
        Ok(Some(overrun)) => Err(illegal(overrun)),
        Err(bad) => Err(illegal(format!("{address:#x} is freed: {bad}"))),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut usize, bytes: usize) -> Code {
    in_context("cuMemAlloc", |card| allocate(card, address, bytes))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(address: *mut usize, bytes: usize, stream: usize) -> Code {
    in_context("cuMemAllocAsync", |card| {
        card.must_know("stream", stream)?;
        allocate(card, address, bytes)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: usize) -> Code {
    in_context("cuMemFree", |card| free(card, address))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(address: usize, stream: usize) -> Code {
    in_context("cuMemFreeAsync", |card| {
        card.must_know("stream", stream)?;
        free(card, address)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut usize, device: i32) -> Code {
    call("cuDeviceGetDefaultMemPool", |card| {
        must_be_first(device)?;
        // SAFETY: the caller gives a place for it.
        unsafe { answer(pool, card.handle()) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemPoolSetAttribute(pool: usize, _: i32, _: *const c_void) -> Code {
    call("cuMemPoolSetAttribute", |card| card.must_know("pool", pool))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolGetAttribute(
    pool: usize,
    attribute: i32,
    value: *mut u64,
) -> Code {
    call("cuMemPoolGetAttribute", |card| {
        card.must_know("pool", pool)?;
        let is = match attribute {
            5 | 7 => card.memory.used, // RESERVED_MEM_CURRENT, USED_MEM_CURRENT
            6 | 8 => card.memory.peak, // RESERVED_MEM_HIGH, USED_MEM_HIGH
            _ => {
                let words = format!("attribute {attribute} is not one that it has");
                return Err(Failure(Code::InvalidValue, words));
            }
        };
        // SAFETY: the caller gives a place for it.
        unsafe { answer(value, is as u64) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemPoolTrimTo(pool: usize, _: usize) -> Code {
    call("cuMemPoolTrimTo", |card| {
        card.report.trims += 1;
        card.memory.trim();
        card.must_know("pool", pool)
    })
}

/// Demands memory of the machine, not of the card.
fn must_be_of_the_machine(card: &Card, what: &str, address: usize) -> Outcome {
    if card.memory.has(address) || address == 0 {
        let words = format!("{what} is {address:#x}, no address of the machine's memory");
        return Err(Failure(Code::InvalidValue, words));
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: usize,
    from: *const u8,
    bytes: usize,
    stream: usize,
) -> Code {
    in_context("cuMemcpyHtoDAsync", |card| {
        card.must_know("stream", stream)?;
        card.must_have("the destination", to, bytes)?;
        must_be_of_the_machine(card, "the source", from as usize)?;
        card.report.to_card.add(bytes);
        if card.memory.backed {
            // SAFETY: the source is the caller's, the destination was checked.
            unsafe { std::ptr::copy_nonoverlapping(from, to as *mut u8, bytes) };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut u8,
    from: usize,
    bytes: usize,
    stream: usize,
) -> Code {
    in_context("cuMemcpyDtoHAsync", |card| {
        card.must_know("stream", stream)?;
        card.must_have("the source", from, bytes)?;
        must_be_of_the_machine(card, "the destination", to as usize)?;
        card.report.from_card.add(bytes);
        card.waited();
        // SAFETY: the destination is the caller's, the source was checked.
        unsafe {
            match card.memory.backed {
                true => std::ptr::copy_nonoverlapping(from as *const u8, to, bytes),
                false => std::ptr::write_bytes(to, 0, bytes),
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    to: usize,
    from: usize,
    bytes: usize,
    stream: usize,
) -> Code {
    in_context("cuMemcpyDtoDAsync", |card| {
        card.must_know("stream", stream)?;
        card.must_have("the source", from, bytes)?;
        card.must_have("the destination", to, bytes)?;
        if from < to + bytes && to < from + bytes {
            let words = format!("{bytes} bytes at {from:#x} and at {to:#x} lie over each other");
            return Err(Failure(Code::InvalidValue, words));
        }
        card.report.within.add(bytes);
        if card.memory.backed {
            // SAFETY: both were checked.
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(to: usize, byte: u8, bytes: usize, stream: usize) -> Code {
    in_context("cuMemsetD8Async", |card| {
        card.must_know("stream", stream)?;
        card.must_have("what is set", to, bytes)?;
        card.report.sets.add(bytes);
        if card.memory.backed {
            // SAFETY: it was checked.
            unsafe { std::ptr::write_bytes(to as *mut u8, byte, bytes) };
        }
        Ok(())
    })
}

/// Any text will do: the kernels are those of the source.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, _: *const c_void) -> Code {
    in_context("cuModuleLoadData", |card| match card.refuses {
        Some(code) => Err(Failure(code, "modules are refused".into())),
        // SAFETY: the caller gives a place for it.
        None => unsafe { answer(module, card.handle()) },
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: usize) -> Code {
    in_context("cuModuleUnload", |card| {
        card.must_know("module", module)?;
        card.handles.remove(&module);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *const Kernel,
    module: usize,
    name: *const c_char,
) -> Code {
    in_context("cuModuleGetFunction", |card| {
        card.must_know("module", module)?;
        card.report.lookups += 1;
        // SAFETY: the caller gives a text.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let Some(kernel) = named(&name) else {
            let words =
                format!("`{name}` is no kernel of the engine, nor one of candle's that it uses");
            return Err(Failure(Code::NotFound, words));
        };
        // SAFETY: the caller gives a place for it. A module's functions live as long as the process.
        unsafe { answer(function, Box::leak(Box::new(kernel)) as *const Kernel) }
    })
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *const Kernel,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: usize,
    args: *const *mut c_void,
    _: *const *mut c_void,
) -> Code {
    in_context("cuLaunchKernel", |card| {
        card.must_know("stream", stream)?;
        let size = Size {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared,
        };
        // SAFETY: functions are those of `cuModuleGetFunction`, and their arguments those of the kernel.
        unsafe { launch(card, *function, size, args) }
    })
}
