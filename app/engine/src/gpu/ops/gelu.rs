//! GELU in its tanh form, as [`crate::ops::gelu`] has it.

use candle_core::{Result, Tensor};

const C: f64 = 0.797_884_560_802_865_4;
const A: f64 = 0.044_715;

/// `gelu(x)`; with `keep`, also its derivative.
pub fn forward(x: &Tensor, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
    let x2 = x.sqr()?;
    // `0.5 (1 + tanh u)` is the logistic function of `2u`.
    let minus_2u = (x * x2.affine(-2.0 * C * A, -2.0 * C)?)?;
    let s = (minus_2u.exp()? + 1.0)?.recip()?;
    let y = (x * &s)?;
    if !keep {
        return Ok((y, None));
    }
    // s + 2 x s (1 − s) du/dx, where x s = y.
    let two_du = x2.affine(6.0 * C * A, 2.0 * C)?;
    let slope = (&s + ((&y * s.affine(-1.0, 1.0)?)? * two_du)?)?;
    Ok((y, Some(slope)))
}
