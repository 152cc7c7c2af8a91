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
