//! Pictures, and their files' bytes.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::error::{FigureError, refused};
use super::style::font;

/// A picture that any backend can draw, at any scale.
pub(super) trait Picture {
    /// Width and height at scale 1.
    fn size(&self) -> (u32, u32);

    /// Draws the picture; the background is already white.
    fn draw<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), FigureError>;
}

/// A picture as SVG.
pub(super) fn svg(picture: &impl Picture) -> Result<String, FigureError> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, picture.size()).into_drawing_area();
        draw_on(&root, picture, 1)?;
    }
    Ok(text)
}

/// Bytes of the pixels of a PNG, at most.
pub(super) const MOST_PIXELS: u64 = 96 << 20;

/// Bytes of the pixels of a picture of this size at a scale.
fn pixels_of((width, height): (u32, u32), scale: u32) -> u64 {
    u64::from(width * scale) * u64::from(height * scale) * 3
}

/// The resolution of a PNG: twice the SVG's nominal size where that is not too much memory, else once; `None` where even
/// that is.
fn scale_of(size: (u32, u32)) -> Option<u32> {
    [2, 1]
        .into_iter()
        .find(|&scale| pixels_of(size, scale) <= MOST_PIXELS)
}

/// A picture as PNG; `None` where it is too large for one.
pub(super) fn png(picture: &impl Picture) -> Result<Option<Vec<u8>>, FigureError> {
    let Some(scale) = scale_of(picture.size()) else {
        return Ok(None);
    };
    let (width, height) = picture.size();
    let (width, height) = (width * scale, height * scale);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        draw_on(&root, picture, scale)?;
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(Some(bytes))
}

fn draw_on<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    picture: &impl Picture,
    scale: u32,
) -> Result<(), FigureError> {
    font()?;
    root.fill(&WHITE).map_err(refused)?;
    picture.draw(root, scale)?;
    root.present().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of many arms would end in as many megabytes as nobody has told of.
    #[test]
    fn the_memory_of_a_png_is_bounded() {
        assert_eq!(scale_of((1240, 800)), Some(2));
        assert_eq!(scale_of((1240, 330 * 50)), Some(1));
        assert_eq!(scale_of((1240, 330 * 200)), None);
        for rows in 1..300 {
            let size = (1240, 330 * rows);
            assert!(scale_of(size).is_none_or(|scale| pixels_of(size, scale) <= MOST_PIXELS));
        }
    }
}
