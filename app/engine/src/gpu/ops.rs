//! Forward and backward of a transformer's operations on tensors, except attention.
//!
//! The counterparts of [`crate::ops`], with the same formulas, in the kernels of `kernels.cu`. What is called rounded is
//! in the engine's precision; all arithmetic is f32.

use candle_core::{DType, Result, Tensor};

use crate::model::Mlp;

use super::arguments::{
    EmbedBackward, EmbedForward, GeluBackward, GeluForward, GluBackward, GluForward, Multiply,
    NormBackward, NormForward, RoundTo, SumRows,
};
use super::kernels::{Grid, MAX_THREADS, launch};
use super::pointers::{Fresh, Out, Rounded, change_f32s, f32s, ids, optional, rounded};
use super::tensor::{is_bf16, upload_ids};

/// Rows of which one block sums the parts of a gain's gradient.
pub const GAIN_ROWS: usize = 8;
/// Columns of which a block sums the rows.
const SUM_COLUMNS: usize = 8;
/// Most rows of one token that a block sums for the gradient of an embedding.
const EMBED_ROWS: usize = 64;
/// Elements that a block takes of a tensor whose shape does not matter.
pub const STRETCH: usize = 4096;
/// Number of a row that is not there.
pub const NO_ROW: u32 = u32::MAX;

/// The result of RMSNorm of `x [M, D]`, before its gain.
pub struct Normed {
    /// `x / rms(x)`, rounded.
    pub(super) y: Tensor,
    /// `1/rms [M]`.
    pub(super) inv_rms: Tensor,
}

/// The gradient of the residual stream `[M, D]`.
pub struct Residual {
    /// In f32; changed in place.
    pub(super) dh: Tensor,
    /// Rounded, as it goes into products: in f32 the same tensor.
    pub(super) rounded: Tensor,
}

/// One block for each of `m` rows of `width` elements, of which a thread takes four at a time.
pub(super) fn rows(m: usize, width: usize) -> Grid {
    Grid {
        blocks: m,
        width: width.div_ceil(4),
    }
}

/// Rows of an embedding `[V, D]`, which is rounded, for `tokens [M]`, times a factor: `[M, D]`, f32.
pub fn embed(table: &Tensor, tokens: &Tensor, scale: f32) -> Result<Tensor> {
    let (m, d, device) = (tokens.dim(0)?, table.dim(1)?, table.device());
    let h = Fresh::f32s((m, d), device)?;
    let args = EmbedForward {
        h: h.out(),
        table: rounded(table, table.dtype())?,
        tokens: ids(tokens)?,
        d,
        bf16: is_bf16(table.dtype()),
        scale,
    };
    launch(device, rows(m, d), &args)?;
    Ok(h.written())
}

/// An RMSNorm.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// Its gains as they are stored, `[1, D]`, rounded; without, they are 1.
    pub gain: Option<&'a Tensor>,
    /// What the gains are more than what is stored.
    pub offset: f32,
    /// Factor of the output.
    pub scale: f32,
    pub eps: f32,
    /// Format of the output.
    pub dtype: DType,
}

impl Norm<'_> {
    /// The output `[M, D]`, rounded, of rows of `x [.., D]`, all of them or those of the numbers `rows [M]`; and what a
    /// backward needs of it, if it `keeps` that.
    pub fn run(
        self,
        x: &Tensor,
        rows: Option<&Tensor>,
        keeps: bool,
    ) -> Result<(Tensor, Option<Normed>)> {
        let dims = (rows.unwrap_or(x).dim(0)?, x.dim(1)?);
        let output = Fresh::rounded(dims, self.dtype, x.device())?;
        if self.gain.is_none() && self.scale == 1.0 {
            let inv_rms = self.write(x, rows, output.out(), Out::NULL, Out::NULL)?;
            let y = output.written();
            return Ok((y.clone(), keeps.then_some(Normed { y, inv_rms })));
        }
        if !keeps {
            self.write(x, rows, Out::NULL, output.out(), Out::NULL)?;
            return Ok((output.written(), None));
        }
        let y = Fresh::rounded(dims, self.dtype, x.device())?;
        let inv_rms = self.write(x, rows, y.out(), output.out(), Out::NULL)?;
        let y = y.written();
        Ok((output.written(), Some(Normed { y, inv_rms })))
    }

    /// Adds the output of all rows of `x [M, D]` to `sum [M, D]`, in place; returns what a backward needs, if it
    /// `keeps` that.
    pub fn add(self, sum: &Tensor, x: &Tensor, keeps: bool) -> Result<Option<Normed>> {
        let y = keeps.then(|| Fresh::rounded(x.dims2()?, self.dtype, x.device()));
        let y = y.transpose()?;
        let out = y.as_ref().map_or(Out::NULL, Fresh::out);
        let inv_rms = self.write(x, None, out, Out::NULL, change_f32s(sum)?)?;
        Ok(y.map(Fresh::written).map(|y| Normed { y, inv_rms }))
    }

    /// Writes the output before the gain and after it, and adds it to a sum; returns `1/rms`.
    fn write(
        self,
        x: &Tensor,
        of: Option<&Tensor>,
        y: Out<Rounded>,
        gained: Out<Rounded>,
        sum: Out<f32>,
    ) -> Result<Tensor> {
        let (device, dtype) = (x.device(), self.dtype);
        let (m, d) = (of.unwrap_or(x).dim(0)?, x.dim(1)?);
        let inv_rms = Fresh::f32s(m, device)?;
        let args = NormForward {
            y,
            gained,
            sum,
            inv_rms: inv_rms.out(),
            x: f32s(x)?,
            gain: optional(self.gain, |gain| rounded(gain, dtype))?,
            rows: optional(of, ids)?,
            d,
            bf16: is_bf16(dtype),
            eps: self.eps,
            offset: self.offset,
            scale: self.scale,
        };
        launch(device, rows(m, d), &args)?;
        Ok(inv_rms.written())
    }
}

/// How the gradient passes through a norm.
pub struct Passing<'a> {
    /// Gradient of the norm's output, `[M, D]`, f32.
    pub dy: &'a Tensor,
    pub norm: Norm<'a>,
    /// Where the gradient of the gain is added, if it is trained.
    pub d_gain: Option<&'a mut Option<Tensor>>,
}

/// Where the gradient of a norm's input goes.
struct Gradient<'a> {
    /// In f32, and rounded; either may be missing.
    dh: Out<'a, f32>,
    rounded: Out<'a, Rounded>,
    /// Number of its rows.
    len: usize,
    /// Which row the norm had of each, if it had only some.
    row_of: Option<&'a Tensor>,
    /// Whether it is added to what is in `dh`.
    adds: bool,
}

impl Normed {
    /// Adds the gradient of the norm's input to `residual`; also returns the norm's output, whose factor must be 1.
    pub fn backward(&self, residual: Residual, passing: Passing) -> Result<(Residual, Tensor)> {
        let Some(_) = passing.norm.gain else {
            return Ok((
                self.pass(residual.dh, None, Out::NULL, passing)?,
                self.y.clone(),
            ));
        };
        let gained = Fresh::rounded(self.y.shape(), self.y.dtype(), self.y.device())?;
        let residual = self.pass(residual.dh, None, gained.out(), passing)?;
        Ok((residual, gained.written()))
    }

    /// The gradient of the norm's input, rounded.
    pub fn backward_alone(&self, passing: Passing) -> Result<Tensor> {
        let dx = Fresh::rounded(self.y.shape(), self.y.dtype(), self.y.device())?;
        let gradient = Gradient {
            dh: Out::NULL,
            rounded: dx.out(),
            len: self.y.dim(0)?,
            row_of: None,
            adds: false,
        };
        self.write(gradient, Out::NULL, passing)?;
        Ok(dx.written())
    }

    /// The gradient of `M` rows, of which the norm took some: row `i` was its row `rows[i]`, or [`NO_ROW`].
    pub fn backward_to_all(&self, rows: &Tensor, passing: Passing) -> Result<Residual> {
        let (m, d) = (rows.dim(0)?, self.y.dim(1)?);
        // SAFETY: the kernel sets every element.
        let dh = unsafe { Tensor::empty((m, d), DType::F32, self.y.device())? };
        self.pass(dh, Some(rows), Out::NULL, passing)
    }

    /// Adds the gradient of the norm's input to `dh`, or sets that of the rows that `row_of` tells; writes the norm's
    /// output after the gain.
    fn pass(
        &self,
        dh: Tensor,
        row_of: Option<&Tensor>,
        gained: Out<Rounded>,
        passing: Passing,
    ) -> Result<Residual> {
        let (dtype, device) = (self.y.dtype(), dh.device());
        let copy = (dtype != DType::F32).then(|| Fresh::rounded(dh.shape(), dtype, device));
        let copy = copy.transpose()?;
        let gradient = Gradient {
            dh: change_f32s(&dh)?,
            rounded: copy.as_ref().map_or(Out::NULL, Fresh::out),
            len: dh.dim(0)?,
            row_of,
            adds: row_of.is_none(),
        };
        self.write(gradient, gained, passing)?;
        let rounded = copy.map_or_else(|| dh.clone(), Fresh::written);
        Ok(Residual { dh, rounded })
    }

    /// Writes the gradient of the norm's input, and the norm's output after the gain; adds that of the gain.
    fn write(&self, to: Gradient, gained: Out<Rounded>, passing: Passing) -> Result<()> {
        let ((normed, d), dtype, device) = (self.y.dims2()?, self.y.dtype(), self.y.device());
        let Passing { dy, norm, d_gain } = passing;
        let len_of_block = if d_gain.is_some() { GAIN_ROWS } else { 1 };
        let blocks = to.len.div_ceil(len_of_block);
        let sums = d_gain.is_some().then(|| Fresh::f32s((blocks, d), device));
        let sums = sums.transpose()?;
        let args = NormBackward {
            dh: to.dh,
            dh_rounded: to.rounded,
            gained,
            gain_sums: sums.as_ref().map_or(Out::NULL, Fresh::out),
            dy: f32s(dy)?,
            y: rounded(&self.y, dtype)?,
            inv_rms: f32s(&self.inv_rms)?,
            gain: optional(norm.gain, |gain| rounded(gain, dtype))?,
            rows: optional(to.row_of, ids)?,
            d,
            bf16: is_bf16(dtype),
            adds: usize::from(to.adds),
            len: to.len,
            len_of_block,
            normed,
            offset: norm.offset,
            scale: norm.scale,
        };
        launch(device, rows(blocks, d), &args)?;
        match (d_gain, sums) {
            (Some(d_gain), Some(sums)) => add_rows(d_gain, Summed::all(&sums.written())?),
            _ => Ok(()),
        }
    }
}

/// Rows of numbers to sum.
#[derive(Clone, Copy)]
pub struct Summed<'a> {
    /// The numbers, f32 or rounded.
    pub x: &'a Tensor,
    /// Numbers of a row.
    pub d: usize,
    /// Number of rows.
    pub len: usize,
    /// Rows that follow one another.
    pub together: usize,
    /// Numbers from the first of these to the first of as many others.
    pub distance: usize,
}

impl<'a> Summed<'a> {
    /// All rows of `x [M, D]`.
    pub fn all(x: &'a Tensor) -> Result<Self> {
        let (len, d) = x.dims2()?;
        Ok(Self {
            x,
            d,
            len,
            together: 1,
            distance: d,
        })
    }
}

/// Adds the sum of rows of D numbers to `sum [1, D]`.
pub fn add_rows(sum: &mut Option<Tensor>, of: Summed) -> Result<()> {
    let (device, dtype, adds) = (of.x.device(), of.x.dtype(), sum.is_some());
    let sum = match sum {
        Some(sum) => sum,
        // SAFETY: the kernel sets every element.
        None => sum.insert(unsafe { Tensor::empty((1, of.d), DType::F32, device)? }),
    };
    let grid = Grid {
        blocks: of.d.div_ceil(SUM_COLUMNS),
        width: MAX_THREADS,
    };
    let args = SumRows {
        sum: change_f32s(sum)?,
        rows: rounded(of.x, dtype)?,
        d: of.d,
        len: of.len,
        together: of.together,
        distance: of.distance,
        columns: SUM_COLUMNS,
        adds: usize::from(adds),
        bf16: is_bf16(dtype),
    };
    launch(device, grid, &args)
}

/// Activation of the MLP: from `x [M, F]`, or gate and up `[M, 2 F]`, to `[M, F]`; both rounded.
pub fn mlp(kind: Mlp, input: &Tensor) -> Result<Tensor> {
    let ((m, width), device, dtype) = (input.dims2()?, input.device(), input.dtype());
    let f = match kind {
        Mlp::Gelu => width,
        Mlp::SwiGlu | Mlp::GeGlu => width / 2,
    };
    let fresh = Fresh::rounded((m, f), dtype, device)?;
    let (y, x, bf16) = (fresh.out(), rounded(input, dtype)?, is_bf16(dtype));
    match kind {
        Mlp::Gelu => launch(device, rows(m, f), &GeluForward { y, x, bf16, f })?,
        Mlp::SwiGlu | Mlp::GeGlu => {
            let gelu = usize::from(kind == Mlp::GeGlu);
            let args = GluForward {
                y,
                x,
                bf16,
                f,
                gelu,
            };
            launch(device, rows(m, f), &args)?;
        }
    }
    Ok(fresh.written())
}

/// Backward of [`mlp`]: the gradient of its input from that of its output, and the output again; all rounded.
pub fn mlp_backward(kind: Mlp, dy: &Tensor, input: &Tensor) -> Result<(Tensor, Tensor)> {
    let ((m, f), device, dtype) = (dy.dims2()?, input.device(), input.dtype());
    let new_dx = Fresh::rounded(input.dims2()?, dtype, device)?;
    let new_y = Fresh::rounded((m, f), dtype, device)?;
    let (dx, y, bf16) = (new_dx.out(), new_y.out(), is_bf16(dtype));
    let (dy, x) = (rounded(dy, dtype)?, rounded(input, dtype)?);
    match kind {
        Mlp::Gelu => {
            let args = GeluBackward {
                dx,
                y,
                dy,
                x,
                bf16,
                f,
            };
            launch(device, rows(m, f), &args)?;
        }
        Mlp::SwiGlu | Mlp::GeGlu => {
            let args = GluBackward {
                dx,
                y,
                dy,
                x,
                bf16,
                f,
                gelu: usize::from(kind == Mlp::GeGlu),
            };
            launch(device, rows(m, f), &args)?;
        }
    }
    Ok((new_dx.written(), new_y.written()))
}

/// Adds to an embedding's gradient `[V, D]`, in the row of each of `tokens [M]`, its row of `dh [M, D]` times a factor.
///
/// No block sums more than [`EMBED_ROWS`] rows; the sums of a token that has more are summed in their order.
pub fn embed_backward(
    grad: &mut Option<Tensor>,
    vocab_size: usize,
    tokens: &[u32],
    dh: &Tensor,
    scale: f32,
) -> Result<()> {
    let (d, device) = (dh.dim(1)?, dh.device());
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_by_key(|&row| tokens[row as usize]);
    let (mut direct, mut parts) = (Pieces::new(), Pieces::new());
    for rows in order.chunk_by(|&a, &b| tokens[a as usize] == tokens[b as usize]) {
        let token = tokens[rows[0] as usize];
        if rows.len() <= EMBED_ROWS {
            direct.push(token, rows);
            continue;
        }
        let first = parts.order.len() as u32;
        for (sum, rows) in (first..).zip(rows.chunks(EMBED_ROWS)) {
            direct.push(vocab_size as u32 + sum, rows);
        }
        let sums: Vec<u32> = (first..first + rows.len().div_ceil(EMBED_ROWS) as u32).collect();
        parts.push(token, &sums);
    }
    let grad = match grad {
        Some(grad) => grad,
        None => grad.insert(Tensor::zeros((vocab_size, d), DType::F32, device)?),
    };
    let sums = match parts.order.len() {
        0 => None,
        n => Some(Fresh::f32s((n, d), device)?),
    };
    let out = sums.as_ref().map_or(Out::NULL, Fresh::out);
    direct.add(grad, out, dh, scale)?;
    match sums {
        Some(sums) => parts.add(grad, Out::NULL, &sums.written(), 1.0),
        None => Ok(()),
    }
}

/// Rows to sum, in pieces, each for a row of its own.
struct Pieces {
    to: Vec<u32>,
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl Pieces {
    fn new() -> Self {
        Self {
            to: Vec::new(),
            starts: vec![0],
            order: Vec::new(),
        }
    }

    fn push(&mut self, to: u32, rows: &[u32]) {
        self.to.push(to);
        self.order.extend(rows);
        self.starts.push(self.order.len() as u32);
    }

    /// Adds each piece's rows of `dh`, times a factor, to its row of `grad [V, D]`, or from V on, sets its row of `sums`.
    fn add(&self, grad: &Tensor, sums: Out<f32>, dh: &Tensor, scale: f32) -> Result<()> {
        let ((v, d), device, blocks) = (grad.dims2()?, dh.device(), self.to.len());
        let all = [&self.to[..], &self.starts, &self.order].concat();
        let all = upload_ids(&all, device)?;
        let part = |first: usize, len: usize| all.narrow(0, first, len);
        let (to, starts) = (part(0, blocks)?, part(blocks, blocks + 1)?);
        let order = part(2 * blocks + 1, self.order.len())?;
        let args = EmbedBackward {
            grad: change_f32s(grad)?,
            sums,
            to: ids(&to)?,
            starts: ids(&starts)?,
            order: ids(&order)?,
            dh: f32s(dh)?,
            d,
            v,
            scale,
        };
        launch(device, rows(blocks, d), &args)
    }
}

/// A tensor's f32 numbers in another format.
pub fn round(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if dtype == DType::F32 {
        return Ok(x.clone());
    }
    let (len, device) = (x.elem_count(), x.device());
    let y = Fresh::rounded(x.shape(), dtype, device)?;
    let args = RoundTo {
        y: y.out(),
        x: f32s(x)?,
        len,
        stretch: STRETCH,
        bf16: is_bf16(dtype),
    };
    launch(device, rows(len.div_ceil(STRETCH), STRETCH), &args)?;
    Ok(y.written())
}

/// Multiplies `x` by `y` of the same shape, in place; both f32.
pub fn multiply(x: &Tensor, y: &Tensor) -> Result<()> {
    let len = x.elem_count();
    let args = Multiply {
        x: change_f32s(x)?,
        y: f32s(y)?,
        len,
        stretch: STRETCH,
    };
    launch(x.device(), rows(len.div_ceil(STRETCH), STRETCH), &args)
}
