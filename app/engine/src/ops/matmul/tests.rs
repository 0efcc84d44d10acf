use super::*;

/// Formats this CPU can compute in; pairs even where they are not the fastest.
fn formats() -> Vec<Format> {
    let mut formats = vec![Format::F32, Format::Rounded];
    #[cfg(target_arch = "x86_64")]
    if InstructionSet::detect() == InstructionSet::Avx512
        && std::arch::is_x86_feature_detected!("avx512bf16")
    {
        formats.push(Format::Pairs);
    }
    formats
}

/// What a format makes of a number.
fn rounded(x: f32, format: Format) -> f64 {
    let mut x = [x];
    if format != Format::F32 {
        Format::Rounded.convert(&mut x, 1, 1);
    }
    f64::from(x[0])
}

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0)
        .collect()
}

/// `Σ_k lhs(i, k) · rhs(k, j)` beside the products' result.
fn check(
    case: &str,
    out: &[f32],
    Sizes { m, n, k }: Sizes,
    lhs: impl Fn(usize, usize) -> f64,
    rhs: impl Fn(usize, usize) -> f64,
    added: f64,
) {
    for i in 0..m {
        for j in 0..n {
            // Every partial sum is rounded once or twice, at most by its 2⁻²⁴ each.
            let (mut exact, mut partial) = (0.0, 1.0 + f64::abs(added));
            for l in 0..k {
                let term = lhs(i, l) * rhs(l, j);
                exact += term;
                partial += exact.abs() + term.abs();
            }
            let error = (f64::from(out[i * n + j]) - exact - added).abs();
            assert!(
                error < partial * 2f64.powi(-23),
                "{case}, {m}x{n}x{k}, ({i}, {j}): off by {error:e}"
            );
        }
    }
}

/// A wrong element anywhere in a layer would spoil every run.
#[test]
fn products_are_the_textbook_ones_at_odd_sizes_in_every_format() {
    let sizes = [
        (1, 1, 1),
        (3, 5, 7),
        (14, 32, 256),
        (15, 33, 257),
        (17, 19, 64),
        (33, 1, 9),
        (1, 40, 64),
        (29, 65, 513),
        (300, 31, 2),
    ];
    for format in formats() {
        for (m, n, k) in sizes {
            let (x, w, dy) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
            let value = |x: f32| rounded(x, format);
            let mut panels = Panels::new(Precision::F32);
            panels.format = format;

            panels.pack_transposed(&w, n, k);
            let mut y = vec![1.0; m * n];
            product(&mut y, &x, &panels, Out::Add);
            let case = format!("{format:?}, x wᵀ");
            check(
                &case,
                &y,
                Sizes { m, n, k },
                |i, l| value(x[i * k + l]),
                |l, j| value(w[j * k + l]),
                1.0,
            );

            panels.pack(&w, n, k);
            let mut dx = vec![f32::NAN; m * k];
            product(&mut dx, &dy, &panels, Out::Set);
            let case = format!("{format:?}, dy w");
            check(
                &case,
                &dx,
                Sizes { m, n: k, k: n },
                |i, l| value(dy[i * n + l]),
                |l, j| value(w[l * k + j]),
                0.0,
            );

            let mut dw = vec![2.0; n * k];
            let dw_sizes = Sizes { m: n, n: k, k: m };
            product_transposed_as(&mut dw, &dy, &x, dw_sizes, Out::Add, format);
            let case = format!("{format:?}, dyᵀ x");
            check(
                &case,
                &dw,
                dw_sizes,
                |i, l| value(dy[l * n + i]),
                |l, j| value(x[l * k + j]),
                2.0,
            );
        }
    }
}

/// A NaN must not be rounded to infinity, nor 1 + 2⁻⁸ to anything but its even neighbour.
#[test]
fn bf16_rounds_to_the_nearest_even() {
    let mut x = [
        1.0,
        1.0 + 2f32.powi(-8),
        1.0 + 3.0 * 2f32.powi(-8),
        -3.003_906_2,
        f32::MAX,
        f32::NEG_INFINITY,
    ];
    Format::Rounded.convert(&mut x, 1, 6);
    let expected = [
        1.0,
        1.0,
        1.0 + 2f32.powi(-6),
        -3.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    assert_eq!(x, expected);
    let mut nan = [f32::NAN, f32::from_bits(0x7f80_0001)];
    Format::Rounded.convert(&mut nan, 1, 2);
    assert!(nan.iter().all(|x| x.is_nan()));
}
