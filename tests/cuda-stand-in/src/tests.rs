//! What a wrong launch, copy or product comes to here, so that tests of the engine can trust a run without complaint.

use std::ffi::{CString, c_void};
use std::ptr::{from_ref, null};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::blas::*;
use crate::card::{Card, Code, insert};
use crate::driver::*;
use crate::kernels::Kernel;
use crate::memory::Memory;

/// As `NormForward` in `kernels.cu`.
#[repr(C)]
#[derive(Default)]
struct Args {
    y: usize,
    gained: usize,
    sum: usize,
    inv_rms: usize,
    x: usize,
    gain: usize,
    rows: usize,
    d: i64,
    bf16: i64,
    eps: f32,
    offset: f32,
    scale: f32,
}

/// What was said on standard error since the last card.
static HEARD: Mutex<String> = Mutex::new(String::new());

/// Keeps a line of standard error.
pub fn heard(line: &str) {
    HEARD
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_str(line);
}

/// A card of one's own, as long as it is held.
struct Lab(#[expect(dead_code, reason = "others wait for it")] MutexGuard<'static, ()>);

impl Lab {
    /// A card that gives so many bytes; the faults of one at a time are watched.
    fn with(gives: usize, backed: bool) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        insert(Card::new(Memory::new(1 << 40, gives, backed)));
        HEARD.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut context = 0;
        // SAFETY: a place for the answer.
        let code = unsafe { cuDevicePrimaryCtxRetain(&mut context, 0) };
        assert_eq!(code, Code::Success);
        cuCtxSetCurrent(context);
        Self(turn)
    }

    fn new() -> Self {
        Self::with(1 << 30, true)
    }

    fn allocate(&self, bytes: usize) -> usize {
        let mut address = 0;
        // SAFETY: a place for the answer.
        let code = unsafe { cuMemAllocAsync(&mut address, bytes, 0) };
        assert_eq!(code, Code::Success);
        address
    }

    fn upload<T>(&self, values: &[T]) -> usize {
        let bytes = size_of_val(values);
        let to = self.allocate(bytes);
        // SAFETY: so many bytes are there.
        let done = unsafe { cuMemcpyHtoDAsync_v2(to, values.as_ptr().cast(), bytes, 0) };
        assert_eq!(done, Code::Success);
        to
    }

    fn download(&self, from: usize, len: usize) -> Vec<f32> {
        let mut values = vec![0f32; len];
        // SAFETY: so many bytes are there.
        let done = unsafe { cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), from, 4 * len, 0) };
        assert_eq!(done, Code::Success);
        values
    }

    fn function(&self, name: &str) -> Result<*const Kernel, Code> {
        let (mut module, mut function) = (0, null());
        let name = CString::new(name).unwrap();
        // SAFETY: places for the answers, and a text.
        unsafe {
            assert_eq!(
                cuModuleLoadData(&mut module, c"".as_ptr().cast()),
                Code::Success
            );
            match cuModuleGetFunction(&mut function, module, name.as_ptr()) {
                Code::Success => Ok(function),
                code => Err(code),
            }
        }
    }

    /// Launches with arguments; each is a pointer to a value.
    fn launch(&self, name: &str, grid: [u32; 3], block: u32, args: &[*const c_void]) -> Code {
        let function = self.function(name).expect("a kernel");
        let (args, none) = (args.as_ptr().cast(), null());
        let [x, y, z] = grid;
        // SAFETY: a function, and its arguments.
        unsafe { cuLaunchKernel(function, x, y, z, block, 1, 1, 0, 0, args, none) }
    }

    fn launch_engine(&self, name: &str, blocks: u32, args: &Args) -> Code {
        self.launch(name, [blocks, 1, 1], 32, &[from_ref(args).cast()])
    }

    /// Demands that this was said.
    #[track_caller]
    fn said(&self, texts: &[&str]) {
        let heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        for text in texts {
            assert!(heard.contains(text), "{text:?} is not in {heard:?}");
        }
    }
}

/// `norm_forward` on `x [2, 3]`.
fn norm(lab: &Lab, x: &[f32]) -> Args {
    Args {
        y: lab.allocate(4 * x.len()),
        inv_rms: lab.allocate(4 * 2),
        x: lab.upload(x),
        d: x.len() as i64 / 2,
        ..Args::default()
    }
}

/// Else every other test here could pass with a stand-in that does nothing.
#[test]
fn a_kernel_computes_what_it_should() {
    let lab = Lab::new();
    let args = norm(&lab, &[1.0, 2.0, 2.0, 0.0, 3.0, 0.0]);
    assert_eq!(lab.launch_engine("norm_forward", 2, &args), Code::Success);
    let (y, inv_rms) = (lab.download(args.y, 6), lab.download(args.inv_rms, 2));
    let root = 3f32.sqrt();
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close(&inv_rms, &[root / 3.0, root / 3.0]), "{inv_rms:?}");
    let expected = [1.0, 2.0, 2.0, 0.0, 3.0, 0.0].map(|x| x * root / 3.0);
    assert!(close(&y, &expected), "{y:?}");
}

/// Else two arguments in the wrong order would be found on a GPU, minutes into a run, or never.
#[test]
fn a_swapped_pointer_is_an_illegal_address_and_is_named() {
    let lab = Lab::new();
    let x = vec![1.0; 2 * 4096];
    let mut args = norm(&lab, &x);
    (args.y, args.inv_rms) = (args.inv_rms, args.y);
    let code = lab.launch_engine("norm_forward", 2, &args);
    assert_eq!(code, Code::IllegalAddress);
    lab.said(&["norm_forward touches 0x", "bytes behind the end of 8 bytes"]);
    // As on a GPU, nothing works from then on.
    assert_eq!(cuStreamSynchronize(0), Code::IllegalAddress);
}

/// Else a pointer that nobody set would be found on a GPU alone.
#[test]
fn a_pointer_to_the_machines_memory_is_an_illegal_address() {
    let lab = Lab::new();
    let mut args = norm(&lab, &[1.0; 6]);
    args.x = from_ref(&args) as usize;
    let code = lab.launch_engine("norm_forward", 2, &args);
    assert_eq!(code, Code::IllegalAddress);
    lab.said(&["norm_forward: x is 0x", "nothing is allocated there"]);
}

/// Else a launch that a GPU refuses would pass here.
#[test]
fn a_grid_or_block_beyond_a_gpus_limits_is_refused() {
    let lab = Lab::new();
    let args = norm(&lab, &[1.0; 6]);
    let pointer: &[*const c_void] = &[from_ref(&args).cast()];
    for (grid, block) in [
        ([1 << 31, 1, 1], 32),
        ([2, 1 << 16, 1], 32),
        ([0, 1, 1], 32),
        ([2, 1, 1], 2048),
        // More than the engine's kernels have shared memory for, and a number that they cannot halve.
        ([2, 1, 1], 512),
        ([2, 1, 1], 96),
    ] {
        let code = lab.launch("norm_forward", grid, block, pointer);
        assert_eq!(code, Code::InvalidValue, "{grid:?}, {block}");
    }
    lab.said(&["norm_forward cannot be launched with a grid of [2, 65536, 1]"]);
    let more_rows = lab.launch_engine("norm_forward", 2000, &args);
    assert_eq!(
        more_rows,
        Code::IllegalAddress,
        "a grid of more rows than there are"
    );
}

/// Else a tensor dropped too early would be noticed by chance.
#[test]
fn freed_memory_is_used_by_nobody() {
    for use_it in [
        (|lab: &Lab, args: &Args| lab.launch_engine("norm_forward", 2, args)) as fn(&_, &_) -> _,
        // SAFETY: nothing is copied.
        |_, args| unsafe { cuMemcpyDtoHAsync_v2([0u8; 4].as_mut_ptr(), args.x, 4, 0) },
        // SAFETY: nothing is set.
        |_, args| unsafe { cuMemsetD8Async(args.x, 0, 4, 0) },
        |_, args| cuMemFreeAsync(args.x, 0),
    ] {
        let lab = Lab::new();
        let args = norm(&lab, &[1.0; 6]);
        assert_eq!(cuMemFreeAsync(args.x, 0), Code::Success);
        assert_ne!(
            lab.upload(&[2f32; 6]),
            args.x,
            "an address is not used again soon"
        );
        assert_eq!(use_it(&lab, &args), Code::IllegalAddress);
        lab.said(&["the 24 bytes there were freed"]);
    }
}

/// Else what is read before it is written would be zero here, and anything on a GPU.
#[test]
fn new_memory_is_full_of_what_is_no_number() {
    let lab = Lab::new();
    let fresh = lab.allocate(4 * 100);
    assert!(lab.download(fresh, 100).iter().all(|x| x.is_nan()));
}

/// Else a write of a few bytes too many, which hits no other page, would pass.
#[test]
fn a_write_just_beside_an_allocation_is_found_when_it_is_freed() {
    let lab = Lab::new();
    let args = norm(&lab, &[1.0; 6]);
    let mut short = Args { ..args };
    // `y` of five numbers, six are written.
    short.y = lab.allocate(4 * 5);
    assert_eq!(lab.launch_engine("norm_forward", 2, &short), Code::Success);
    assert_eq!(cuMemFreeAsync(short.y, 0), Code::IllegalAddress);
    lab.said(&["something wrote behind the 20 bytes at 0x"]);
}

/// Else a typing error in a kernel's name, or a new one of candle's, would be found on a GPU alone.
#[test]
fn an_unknown_kernel_is_not_found_and_is_named() {
    let lab = Lab::new();
    assert_eq!(lab.function("norm_sideways"), Err(Code::NotFound));
    lab.said(&["`norm_sideways` is no kernel of the engine"]);
}

/// Else nobody could test what a full card comes to.
#[test]
fn a_full_card_gives_nothing_more() {
    let lab = Lab::with(10_000, true);
    let (first, mut second) = (lab.allocate(8000), 0);
    // SAFETY: a place for the answer.
    let code = unsafe { cuMemAllocAsync(&mut second, 8000, 0) };
    assert_eq!(code, Code::OutOfMemory);
    assert_eq!(cuMemFreeAsync(first, 0), Code::Success);
    lab.allocate(8000);
}

/// Else nobody could test whether a pool in pieces is given back before work is given up.
#[test]
fn a_pool_in_pieces_gives_nothing_until_it_is_trimmed() {
    let lab = Lab::with(10_000, true);
    crate::card::call("a test", |card| {
        card.memory.whole_for = Some(1);
        Ok(())
    });
    lab.allocate(100);
    let (mut second, mut pool) = (0, 0);
    // SAFETY: places for the answers.
    unsafe {
        assert_eq!(cuMemAllocAsync(&mut second, 100, 0), Code::OutOfMemory);
        assert_eq!(cuMemAllocAsync(&mut second, 100, 0), Code::OutOfMemory);
        assert_eq!(cuDeviceGetDefaultMemPool(&mut pool, 0), Code::Success);
    }
    assert_eq!(cuMemPoolTrimTo(pool, 0), Code::Success);
    lab.allocate(100);
    lab.allocate(100);
}

/// Else a thread that never opened the card would pass here.
#[test]
fn a_thread_without_a_context_is_refused() {
    let lab = Lab::new();
    let code = std::thread::spawn(|| cuStreamSynchronize(0))
        .join()
        .unwrap();
    assert_eq!(code, Code::InvalidContext);
    drop(lab);
}

/// Else shapes of real models could not be checked on a small machine.
#[test]
fn counting_alone_takes_no_memory_and_checks_all_the_same() {
    let lab = Lab::with(1 << 40, false);
    let args = Args {
        y: lab.allocate(1 << 38),
        inv_rms: lab.allocate(1 << 38),
        x: lab.allocate(1 << 38),
        d: 1 << 35,
        ..Args::default()
    };
    assert_eq!(lab.launch_engine("norm_forward", 2, &args), Code::Success);
    assert_eq!(lab.download(args.y, 3), [0.0; 3]);
    assert_eq!(cuMemFreeAsync(args.y, 0), Code::Success);
    assert_eq!(
        lab.launch_engine("norm_forward", 2, &args),
        Code::IllegalAddress
    );
}

/// A product as cuBLAS is asked for it.
struct Gemm {
    shape: [i32; 3],
    transposed: [bool; 2],
    bf16: bool,
    beta: f32,
    batch: usize,
}

impl Gemm {
    fn leading(&self) -> [i32; 3] {
        let [m, n, k] = self.shape;
        let [a, b] = self.transposed;
        // One more than needed, so that columns lie apart.
        [if a { k } else { m } + 1, if b { n } else { k } + 1, m + 1]
    }

    fn columns(&self) -> [i32; 3] {
        let [m, n, k] = self.shape;
        let [a, b] = self.transposed;
        [if a { m } else { k }, if b { k } else { n }, n]
    }

    /// Elements of all matrices of each kind.
    fn lengths(&self) -> [usize; 3] {
        let (leading, columns) = (self.leading(), self.columns());
        [0, 1, 2].map(|i| (leading[i] * columns[i]) as usize * self.batch)
    }

    fn run(&self, a: usize, b: usize, c: usize) -> i32 {
        let mut handle = 0;
        let kind = if self.bf16 { 14 } else { 0 };
        let [m, n, k] = self.shape;
        let [la, lb, lc] = self.leading();
        let [ca, cb, cc] = self.columns();
        let [ta, tb] = self.transposed.map(i32::from);
        let distance = |leading: i32, columns: i32| i64::from(leading * columns);
        let (alpha, beta) = (from_ref(&2f32).cast(), from_ref(&self.beta).cast());
        // SAFETY: a place for the answer, and two factors.
        unsafe {
            assert_eq!(cublasCreate_v2(&mut handle), 0);
            cublasGemmStridedBatchedEx(
                handle,
                ta,
                tb,
                m,
                n,
                k,
                alpha,
                a,
                kind,
                la,
                distance(la, ca),
                b,
                kind,
                lb,
                distance(lb, cb),
                beta,
                c,
                0,
                lc,
                distance(lc, cc),
                self.batch as i32,
                68,
                -1,
            )
        }
    }

    /// By the definition.
    fn expected(&self, a: &[f32], b: &[f32], c: &[f32]) -> Vec<f32> {
        let [m, n, k] = self.shape.map(|n| n as usize);
        let [la, lb, lc] = self.leading().map(|n| n as usize);
        let each = self.lengths().map(|len| len / self.batch);
        let mut out = c.to_vec();
        for i in 0..self.batch {
            for row in 0..m {
                for column in 0..n {
                    let dot: f32 = (0..k)
                        .map(|j| {
                            let at_a = if self.transposed[0] {
                                row * la + j
                            } else {
                                j * la + row
                            };
                            let at_b = if self.transposed[1] {
                                j * lb + column
                            } else {
                                column * lb + j
                            };
                            a[i * each[0] + at_a] * b[i * each[1] + at_b]
                        })
                        .sum();
                    let at = i * each[2] + column * lc + row;
                    out[at] = 2.0 * dot
                        + if self.beta == 0.0 {
                            0.0
                        } else {
                            self.beta * c[at]
                        };
                }
            }
        }
        out
    }
}

/// Whole numbers, which products of any order and format have exactly.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect()
}

/// Else right operands could give wrong products here, and wrong ones right ones.
#[test]
fn products_are_those_of_the_definition() {
    let lab = Lab::new();
    for case in 0..16 {
        let [bit0, bit1, bit2, bit3] = [1, 2, 4, 8].map(|bit| case & bit != 0);
        let gemm = Gemm {
            shape: [5, 3, 4],
            transposed: [bit0, bit1],
            bf16: bit2,
            beta: if bit3 { 3.0 } else { 0.0 },
            batch: 2,
        };
        let [a, b, c] = gemm.lengths().map(numbers);
        let upload = |x: &[f32]| match gemm.bf16 {
            true => lab.upload(
                &x.iter()
                    .map(|&x| half::bf16::from_f32(x))
                    .collect::<Vec<_>>(),
            ),
            false => lab.upload(x),
        };
        let (at_a, at_b, at_c) = (upload(&a), upload(&b), lab.upload(&c));
        assert_eq!(gemm.run(at_a, at_b, at_c), 0);
        assert_eq!(
            lab.download(at_c, c.len()),
            gemm.expected(&a, &b, &c),
            "case {case}"
        );
    }
}

/// Else a wrong distance or size would read what is behind a matrix.
#[test]
fn products_beyond_what_is_allocated_or_over_their_factors_are_refused() {
    let gemm = Gemm {
        shape: [5, 3, 4],
        transposed: [false, false],
        bf16: false,
        beta: 0.0,
        batch: 2,
    };
    for short in 0..3 {
        let lab = Lab::new();
        let mut lengths = gemm.lengths();
        // One element of the last matrix is missing, and the one that no column has.
        lengths[short] -= 2;
        let [a, b, c] = lengths.map(|len| lab.allocate(4 * len));
        assert_ne!(gemm.run(a, b, c), 0);
        lab.said(&[
            ["A is 0x", "B is 0x", "C is 0x"][short],
            "are left of what is allocated there",
        ]);
    }
    let lab = Lab::new();
    let [a, b, _] = gemm.lengths().map(|len| lab.allocate(4 * len));
    assert_ne!(gemm.run(a, b, a), 0);
    lab.said(&["lies over what it is computed from"]);
}

/// Else what candle's kernels still do in the GPU's path would be done wrong here alone, or right here alone.
#[test]
fn candles_kernels_compute_what_candles_do() {
    let lab = Lab::new();
    let pointer = |address: &usize| from_ref(address).cast::<c_void>();
    let third = 1.0 + 1.0 / 512.0;
    let (x, y) = (
        lab.upload(&[1f32, 2.0, 3.0, 4.0, f32::NAN, third]),
        lab.allocate(12),
    );
    let (len, dims, null) = (6usize, 2usize, 0usize);
    let args = [&len, &dims, &null, &x, &y].map(pointer);
    let launch = |name: &str, block| lab.launch(name, [1, 1, 1], block, &args);
    assert_eq!(launch("cast_f32_bf16", 2048), Code::InvalidValue);
    assert_eq!(launch("cast_f32_bf16", 1024), Code::Success);
    // The transpose of [2, 3], and the nearest even of two equally near.
    let (info, z) = (lab.upload(&[3usize, 2, 1, 3]), lab.allocate(24));
    let args = [&len, &dims, &info, &y, &z].map(pointer);
    let code = lab.launch("cast_bf16_f32", [1, 1, 1], 1024, &args);
    assert_eq!(code, Code::Success);
    let found = lab.download(z, 6);
    assert_eq!(found[..3], [1.0, 4.0, 2.0]);
    assert!(found[3].is_nan());
    assert_eq!(found[4..], [3.0, 1.0]);
}
