//! Pictures: smaller where that costs nothing, and the still of one that moves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Filter};

/// An SVG whose embedded PNGs are stored with as few bytes as they need.
pub fn smaller_inside(svg: &str) -> String {
    const BEGINS: &str = "data:image/png;base64,";
    let mut parts = svg.split(BEGINS);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        let end = part.find('"').unwrap_or(part.len());
        let (data, rest) = part.split_at(end);
        let small = STANDARD.decode(data).ok().and_then(|png| smaller(&png));
        let small = small.map(|png| STANDARD.encode(png)).filter(|small| small.len() < data.len());
        out + BEGINS + small.as_deref().unwrap_or(data) + rest
    })
}

/// The same pixels, without colour where all are grey. `None` for what is no simple picture.
fn smaller(png: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Decoder::new(std::io::Cursor::new(png)).read_info().ok()?;
    let info = reader.info();
    let (width, height, color) = (info.width, info.height, info.color_type);
    if info.bit_depth != BitDepth::Eight || info.trns.is_some() || info.animation_control.is_some() {
        return None;
    }
    let mut pixels = vec![0; reader.output_buffer_size()?];
    reader.next_frame(&mut pixels).ok()?;
    let color = match color {
        ColorType::Rgb if pixels.chunks_exact(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]) => {
            pixels = pixels.iter().copied().step_by(3).collect();
            ColorType::Grayscale
        }
        ColorType::Rgb | ColorType::Grayscale => color,
        _ => return None,
    };
    let tries =
        [Filter::NoFilter, Filter::Adaptive].map(|filter| write(&pixels, (width, height), color, filter));
    tries.into_iter().flatten().min_by_key(Vec::len)
}

fn write(pixels: &[u8], (width, height): (u32, u32), color: ColorType, filter: Filter) -> Option<Vec<u8>> {
    let mut png = Vec::new();
    let mut encoder = Encoder::new(&mut png, width, height);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::High);
    encoder.set_filter(filter);
    encoder.write_header().ok()?.write_image_data(pixels).ok()?;
    Some(png)
}

/// Width and height in pixels of a PNG or an SVG.
pub fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    if bytes.starts_with(b"\x89PNG") {
        return Some((number(16)?, number(20)?));
    }
    let text = str::from_utf8(bytes).ok()?;
    let tag = text.get(text.find("<svg")?..)?.split('>').next()?;
    Some((length(tag, "width")?, length(tag, "height")?))
}

/// A number of pixels that is an attribute of a tag.
fn length(tag: &str, name: &str) -> Option<u32> {
    let value = ['"', '\'']
        .iter()
        .find_map(|quote| tag.split(&format!(" {name}={quote}")).nth(1)?.split(*quote).next())?;
    value.trim_end_matches("px").parse::<f64>().ok().map(|value| value.round() as u32)
}

/// The attributes that a tag lacks so that the browser can keep the place of a picture free until it is there.
pub fn missing_size(tag: &str, bytes: &[u8]) -> String {
    let Some((width, height)) = size(bytes).filter(|(width, _)| *width > 0) else { return String::new() };
    let (shown, has_height) = (length(tag, "width"), tag.contains(" height=\""));
    let scaled = (f64::from(height) * f64::from(shown.unwrap_or(width)) / f64::from(width)).round();
    let mut attributes = if shown.is_none() { format!(" width=\"{width}\"") } else { String::new() };
    if !has_height {
        attributes += &format!(" height=\"{scaled}\"");
    }
    attributes
}

/// The first picture of a PNG that moves; `None` for one that does not.
pub fn still(png: &[u8]) -> Option<Vec<u8>> {
    let (signature, mut rest) = png.split_at_checked(8)?;
    let mut out = signature.to_vec();
    let mut moves = false;
    // A chunk: four bytes of length, four of kind, the data, four of checksum.
    while let Some(length) = rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize) {
        let (chunk, after) = rest.split_at_checked(length.checked_add(12)?)?;
        match &chunk[4..8] {
            b"acTL" => moves = true,
            b"fcTL" | b"fdAT" => {}
            _ => out.extend_from_slice(chunk),
        }
        rest = after;
    }
    moves.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(png: &[u8]) -> (ColorType, Vec<u8>) {
        let mut reader = Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.color_type, pixels)
    }

    #[test]
    fn grey_pictures_lose_their_colour_and_coloured_ones_keep_it() {
        let grey: Vec<u8> = (0..64).flat_map(|i| [3 * i, 3 * i, 3 * i]).collect();
        let png = write(&grey, (8, 8), ColorType::Rgb, Filter::NoFilter).unwrap();
        let expected: Vec<u8> = (0..64).map(|i| 3 * i).collect();
        assert_eq!(pixels(&smaller(&png).unwrap()), (ColorType::Grayscale, expected));
        let svg = |png: &[u8]| format!("<image href=\"data:image/png;base64,{}\"/>", STANDARD.encode(png));
        assert_eq!(smaller_inside(&svg(&png)), svg(&smaller(&png).unwrap()));
        let coloured: Vec<u8> = (0..192).collect();
        let png = write(&coloured, (8, 8), ColorType::Rgb, Filter::NoFilter).unwrap();
        assert_eq!(pixels(&smaller(&png).unwrap()), (ColorType::Rgb, coloured));
        assert_eq!(
            smaller_inside("<svg>data:image/png;base64,???\"</svg>"),
            "<svg>data:image/png;base64,???\"</svg>"
        );
    }

    #[test]
    fn the_size_that_a_tag_does_not_say_is_added() {
        let svg = b"<?xml version=\"1.0\"?><svg width=\"640\" height=\"400\" viewBox=\"0 0 1 1\"><rect width=\"9\"/></svg>";
        assert_eq!(size(svg), Some((640, 400)));
        assert_eq!(size(b"<svg width='64' height='40'/>"), Some((64, 40)));
        let png = write(&[0; 15], (5, 3), ColorType::Grayscale, Filter::NoFilter).unwrap();
        assert_eq!(size(&png), Some((5, 3)));
        assert_eq!(missing_size("<img ", svg), " width=\"640\" height=\"400\"");
        assert_eq!(missing_size("<img width=\"320\" ", svg), " height=\"200\"");
        assert_eq!(missing_size("<img width=\"1\" height=\"2\" ", svg), "");
        assert_eq!(missing_size("<img ", b"no picture"), "");
    }

    #[test]
    fn a_picture_that_moves_has_a_still() {
        let mut png = Vec::new();
        let mut encoder = Encoder::new(&mut png, 1, 1);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_animated(2, 0).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[7]).unwrap();
        writer.write_image_data(&[9]).unwrap();
        writer.finish().unwrap();
        let still = still(&png).unwrap();
        assert_eq!(pixels(&still).1, [7]);
        assert_eq!(super::still(&still), None);
        assert_eq!(super::still(b"no picture"), None);
    }
}
