//! Re-encodes a picture: whatever the server sent, this node stores a small square JPEG that it made itself, without
//! any remains of the original file.

use std::io::Cursor;

use conclave_state::picture::MAX_PICTURE_BYTES;
use image::{
    DynamicImage, ImageError, ImageFormat, ImageReader, Limits, Rgb, RgbImage, codecs::jpeg::JpegEncoder,
    imageops::FilterType,
};

/// Width and height of the result, pixels: twice the size on pages.
const SIDE: u32 = 128;
/// Maximum number of pixels along one side of the input.
const MAX_SIDE: u32 = 4_096;
/// Maximum memory for decoding: four bytes for each pixel, and as much again.
const MAX_MEMORY: u64 = 128 * 1024 * 1024;
/// JPEG qualities, tried in order until the result is small enough.
const QUALITIES: [u8; 3] = [85, 60, 30];

/// The reason why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AvatarError {
    #[error("it is not a PNG, JPEG or WebP")]
    Kind,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("its content is larger than stated, or animated")]
    Inside,
    #[error("it cannot be made small enough")]
    Size,
}

/// A JPEG of [`SIDE`] by [`SIDE`] pixels, of the middle of the picture.
pub(crate) fn drawn_anew(bytes: &[u8]) -> Result<Vec<u8>, AvatarError> {
    let format = image::guess_format(bytes).map_err(|_| AvatarError::Kind)?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP) {
        return Err(AvatarError::Kind);
    }
    if format == ImageFormat::WebP && !is_plain_webp(bytes) {
        return Err(AvatarError::Inside);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let picture = on_white(&reader.decode()?.resize_to_fill(SIDE, SIDE, FilterType::Triangle));
    for quality in QUALITIES {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(&picture)?;
        if jpeg.len() <= MAX_PICTURE_BYTES {
            return Ok(jpeg);
        }
    }
    Err(AvatarError::Size)
}

/// True if no frame of a WebP exceeds the limits. A WebP states its size twice: in the container, against which the
/// decoder checks the limits, and in the frame, by which memory is allocated (RFC 9649 §2.5, RFC 6386 §9.1). All frames
/// are checked here; an animation is refused.
fn is_plain_webp(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((head, body)) = rest.split_at_checked(8) {
        let (kind, length) = head.split_at(4);
        let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
        match kind {
            b"ANIM" | b"ANMF" => return false,
            b"VP8 " if !body.get(6..10).is_some_and(is_small) => return false,
            _ => {}
        }
        rest = body.get(length.saturating_add(length & 1)..).unwrap_or_default();
    }
    true
}

/// Checks width and height of a frame, 14 bits each.
fn is_small(sides: &[u8]) -> bool {
    let side =
        |pair: &[u8]| pair.try_into().map_or(u32::MAX, |pair| u32::from(u16::from_le_bytes(pair) & 0x3fff));
    sides.chunks(2).all(|pair| side(pair) <= MAX_SIDE)
}

/// Draws the picture on white, because a JPEG has no transparency.
fn on_white(picture: &DynamicImage) -> RgbImage {
    let over = picture.to_rgba8();
    let blend = |color: u8, alpha: u8| {
        let (color, alpha) = (u16::from(color), u16::from(alpha));
        u8::try_from((color * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX)
    };
    RgbImage::from_fn(over.width(), over.height(), |x, y| {
        let [red, green, blue, alpha] = over.get_pixel(x, y).0;
        Rgb([red, green, blue].map(|color| blend(color, alpha)))
    })
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    fn png(width: u32, height: u32, color: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
        let picture = RgbaImage::from_fn(width, height, |x, y| Rgba(color(x, y)));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn what_comes_is_drawn_small_and_square() {
        let bytes =
            png(600, 200, |x, _| if (200..400).contains(&x) { [200, 0, 0, 255] } else { [0, 0, 0, 0] });
        let drawn = drawn_anew(&bytes).unwrap();
        let kept = image::load_from_memory_with_format(&drawn, ImageFormat::Jpeg).unwrap().to_rgb8();
        assert_eq!((kept.width(), kept.height()), (SIDE, SIDE));
        let [red, green, _] = kept.get_pixel(64, 64).0;
        assert!(red > 180 && green < 30, "the middle of it: {red} {green}");
        let clear = image::load_from_memory(&drawn_anew(&png(9, 9, |_, _| [0, 0, 0, 0])).unwrap()).unwrap();
        assert!(clear.to_rgb8().get_pixel(5, 5).0.iter().all(|color| *color > 250), "on white");
    }

    #[test]
    fn the_noisiest_one_fits() {
        let mut seed = 1_u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        let picture = RgbaImage::from_fn(SIDE, SIDE, |_, _| Rgba([noise(), noise(), noise(), 255]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        assert!(drawn_anew(bytes.get_ref()).unwrap().len() <= MAX_PICTURE_BYTES);
    }

    #[test]
    fn what_is_no_picture_or_too_large_a_one_is_refused() {
        for wrong in [
            &b""[..],
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"GIF89a",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
        ] {
            assert!(drawn_anew(wrong).is_err(), "{wrong:?}");
        }
        assert!(drawn_anew(&png(MAX_SIDE + 1, 1, |_, _| [1; 4])).is_err());
        // A few bytes that claim to be 60,000 by 60,000 pixels.
        let mut bomb = png(1, 1, |_, _| [1; 4]);
        bomb.splice(16..24, [0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        assert!(drawn_anew(&bomb).is_err());
        let whole = png(64, 64, |x, y| if x > y { [0, 0, 0, 255] } else { [200; 4] });
        for length in 0..whole.len() - 12 {
            assert!(drawn_anew(&whole[..length]).is_err(), "cut at {length}");
        }
    }

    /// An extended WebP that claims 16 by 16 pixels, followed by one chunk.
    fn webp(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let chunk = |kind: &[u8; 4], body: &[u8]| {
            [kind, &u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
        };
        let outside = chunk(b"VP8X", &[0, 0, 0, 0, 15, 0, 0, 15, 0, 0]);
        chunk(b"RIFF", &[b"WEBP", &outside[..], &chunk(kind, body)].concat())
    }

    #[test]
    fn no_frame_is_larger_than_what_the_limits_were_held_against() {
        let frame =
            |side: u16| [&[0x10, 0, 0, 0x9d, 1, 0x2a][..], &side.to_le_bytes(), &side.to_le_bytes()].concat();
        for (kind, body) in [(b"VP8 ", frame(16_383)), (b"VP8 ", vec![0x10]), (b"ANMF", vec![0; 32])] {
            let drawn = drawn_anew(&webp(kind, &body));
            assert!(matches!(drawn, Err(AvatarError::Inside)), "{drawn:?}");
        }
        // Decoded, and found to be truncated.
        assert!(matches!(drawn_anew(&webp(b"VP8 ", &frame(16))), Err(AvatarError::Image(_))));
        let mut good = Cursor::new(Vec::new());
        RgbaImage::from_pixel(9, 9, Rgba([200, 0, 0, 255])).write_to(&mut good, ImageFormat::WebP).unwrap();
        assert!(drawn_anew(good.get_ref()).is_ok());
    }
}
