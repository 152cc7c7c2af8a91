//! Picture files: PNG, JPEG and WebP, read upright and of a bounded size, and written as a whole or not at all.
//!
//! Pictures are arrays (height, width, 3) of bytes: rows from top to bottom, and red, green and blue of each pixel.

use crate::array::Array;
use crate::io::file::{self, FileError, unreadable, write_at_once};
use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::imageops::FilterType;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageReader, RgbImage};
use std::io::{self, BufReader, Write};
use std::path::Path;

/// The most pixels of a picture that is read: three times those of a large camera's.
const PIXEL_LIMIT: u64 = 200_000_000;

/// The endings of the files that [`write()`] knows.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Reads a picture (height, width, 3), turned as its camera was held (the orientation in its EXIF data).
///
/// # Errors
/// When the file can't be read, is no PNG, JPEG or WebP, is damaged, or has more than 200 million pixels.
pub fn read(path: impl AsRef<Path>) -> Result<Array<u8>, FileError> {
    let path = path.as_ref();
    let (file, _) = file::open(path).map_err(|what| FileError::new(path, what))?;
    let image = decode(BufReader::new(file)).map_err(|what| FileError::new(path, what))?;
    Ok(pixels(image.into_rgb8()))
}

fn decode(file: BufReader<std::fs::File>) -> Result<DynamicImage, String> {
    let wrong = |error: ImageError| match error {
        ImageError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => unreadable(error),
        error => format!("{error}; a PNG, JPEG or WebP picture is expected, get or save it again"),
    };
    // What a file is, its first bytes say, and not its name.
    let reader = ImageReader::new(file).with_guessed_format().map_err(unreadable)?;
    let mut decoder = reader.into_decoder().map_err(wrong)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXEL_LIMIT {
        return Err(format!("has {width}x{height} pixels, and {PIXEL_LIMIT} are possible; make it smaller"));
    }
    let orientation = decoder.orientation().map_err(wrong)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(wrong)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The size (height, width) of a picture's largest smaller copy that has at most `most` pixels, both sides being
/// multiples of `multiple`.
///
/// # Panics
/// If `multiple` is 0.
pub fn size_within((height, width): (usize, usize), most: usize, multiple: usize) -> (usize, usize) {
    let shrink = (most as f64 / (height as f64 * width as f64)).sqrt().min(1.0);
    let side = |side: usize| ((side as f64 * shrink) as usize / multiple * multiple).max(multiple);
    (side(height), side(width))
}

/// The picture in another size (height, width): scaled until it fills it, and cut off evenly where it is too long.
///
/// # Panics
/// If the array is not (height, width, 3), or a side is 0 or beyond 2³² - 1.
#[track_caller]
pub fn fill(picture: &Array<u8>, (height, width): (usize, usize)) -> Array<u8> {
    let image = DynamicImage::ImageRgb8(image_of("fill", picture));
    let side = |side: usize| {
        u32::try_from(side).ok().filter(|&side| side > 0).expect("fill: sides from 1 to 2³² - 1")
    };
    pixels(image.resize_to_fill(side(width), side(height), FilterType::Lanczos3).into_rgb8())
}

/// Whether [`write()`] can write a file of this name: one that ends in `.png`, `.jpg`, `.jpeg` or `.webp`.
///
/// # Errors
/// If not; the error says which endings are known. Ask before a long computation.
pub fn check_name(path: impl AsRef<Path>) -> Result<(), FileError> {
    let path = path.as_ref();
    match ENDINGS.contains(&ending(path).as_str()) {
        true => Ok(()),
        false => {
            let what = format!("pictures are written as .{}; name the file so", ENDINGS.join(", ."));
            Err(FileError::new(path, what))
        }
    }
}

/// Writes a picture (height, width, 3) in the format that the file's ending names; JPEG with a quality of 95. A file of
/// that name is replaced in one step. A PNG also keeps texts, each under a name: other programs show, for instance, what
/// stands under `parameters`.
///
/// # Errors
/// When the name has another ending ([`check_name`]), or the file can't be written.
///
/// # Panics
/// If the array is not (height, width, 3).
#[track_caller]
pub fn write(path: impl AsRef<Path>, picture: &Array<u8>, texts: &[(&str, &str)]) -> Result<(), FileError> {
    let path = path.as_ref();
    check_name(path)?;
    let image = image_of("write", picture);
    let size = (image.width(), image.height());
    let written = write_at_once(path, |file| match ending(path).as_str() {
        "png" => write_png(file, &image, texts),
        "webp" => WebPEncoder::new_lossless(file)
            .encode(&image, size.0, size.1, ExtendedColorType::Rgb8)
            .map_err(io::Error::other),
        _ => JpegEncoder::new_with_quality(file, 95).encode_image(&image).map_err(io::Error::other),
    });
    written.map_err(|error| {
        FileError::new(path, format!("{error}; check the folder, its permissions, and the room on the disk"))
    })
}

fn write_png(file: &mut impl Write, image: &RgbImage, texts: &[(&str, &str)]) -> io::Result<()> {
    let mut encoder = png::Encoder::new(file, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    for (name, text) in texts {
        encoder.add_itxt_chunk(name.to_string(), text.to_string())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image)?;
    Ok(writer.finish()?)
}

/// What comes after the last dot of a file's name, in small letters.
fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn pixels(image: RgbImage) -> Array<u8> {
    let (width, height) = image.dimensions();
    Array::new(image.into_raw(), &[height as usize, width as usize, 3])
}

#[track_caller]
fn image_of(operation: &str, picture: &Array<u8>) -> RgbImage {
    let image = match picture.shape() {
        &[height, width, 3] => u32::try_from(width).ok().zip(u32::try_from(height).ok()),
        _ => None,
    };
    let bytes = picture.iter().copied().collect();
    image
        .and_then(|(width, height)| RgbImage::from_raw(width, height, bytes))
        .unwrap_or_else(|| panic!("{operation}: a picture is (height, width, 3), not {:?}", picture.shape()))
}
