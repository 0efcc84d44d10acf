//! Matrix products on one thread, row-major, through the `gemm` crate (AVX-512/AVX2 at run time).

use gemm::Parallelism;

/// What happens to what stands in the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// It is overwritten.
    Set,
    /// The product is added to it.
    Add,
}

/// `y[M,N] = x[M,K] · w[N,K]ᵀ`: a linear layer with weights `[out, in]`.
pub fn matmul_nt(y: &mut [f32], x: &[f32], w: &[f32], m: usize, n: usize, k: usize, out: Out) {
    assert!(y.len() == m * n && x.len() == m * k && w.len() == n * k);
    run(y, (n, 1), x, (k, 1), w, (1, k), (m, n, k), out);
}

/// `dx[M,K] = dy[M,N] · w[N,K]`: a linear layer's gradient to its input.
pub fn matmul_nn(dx: &mut [f32], dy: &[f32], w: &[f32], m: usize, n: usize, k: usize, out: Out) {
    assert!(dx.len() == m * k && dy.len() == m * n && w.len() == n * k);
    run(dx, (k, 1), dy, (n, 1), w, (k, 1), (m, k, n), out);
}

/// `dw[N,K] = dy[M,N]ᵀ · x[M,K]`: a linear layer's gradient to its weights.
pub fn matmul_tn(dw: &mut [f32], dy: &[f32], x: &[f32], m: usize, n: usize, k: usize, out: Out) {
    assert!(dw.len() == n * k && dy.len() == m * n && x.len() == m * k);
    run(dw, (k, 1), dy, (1, n), x, (k, 1), (n, k, m), out);
}

/// `dst[m,n] (+)= lhs[m,k] · rhs[k,n]`; strides are (row, column).
#[allow(clippy::too_many_arguments)]
fn run(
    dst: &mut [f32],
    dst_stride: (usize, usize),
    lhs: &[f32],
    lhs_stride: (usize, usize),
    rhs: &[f32],
    rhs_stride: (usize, usize),
    (m, n, k): (usize, usize, usize),
    out: Out,
) {
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: the public functions checked that the slices hold just the elements that these
    // dimensions and strides reach; `dst` is borrowed mutably, so nothing overlaps it.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            dst_stride.1 as isize,
            dst_stride.0 as isize,
            out == Out::Add,
            lhs.as_ptr(),
            lhs_stride.1 as isize,
            lhs_stride.0 as isize,
            rhs.as_ptr(),
            rhs_stride.1 as isize,
            rhs_stride.0 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_the_textbook_ones_at_odd_sizes() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 19, 64), (33, 1, 9), (1, 40, 64)] {
            let x: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let dy: Vec<f32> = (0..m * n).map(|i| (i % 5) as f32 - 2.0).collect();
            let mut y = vec![1.0; m * n];
            matmul_nt(&mut y, &x, &w, m, n, k, Out::Add);
            let mut dx = vec![f32::NAN; m * k];
            matmul_nn(&mut dx, &dy, &w, m, n, k, Out::Set);
            let mut dw = vec![2.0; n * k];
            matmul_tn(&mut dw, &dy, &x, m, n, k, Out::Add);
            for i in 0..m {
                for j in 0..n {
                    let sum: f32 = (0..k).map(|l| x[i * k + l] * w[j * k + l]).sum();
                    assert_eq!(y[i * n + j], 1.0 + sum);
                }
                for l in 0..k {
                    let sum: f32 = (0..n).map(|j| dy[i * n + j] * w[j * k + l]).sum();
                    assert_eq!(dx[i * k + l], sum);
                }
            }
            for j in 0..n {
                for l in 0..k {
                    let sum: f32 = (0..m).map(|i| dy[i * n + j] * x[i * k + l]).sum();
                    assert_eq!(dw[j * k + l], 2.0 + sum);
                }
            }
        }
    }
}
