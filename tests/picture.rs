//! Picture files: a photo is upright, what is written is read again, and what is no picture is refused by name.

use minai::array::Array;
use minai::io::picture::{check_name, fill, read, size_within, write};
use std::fs;
use std::path::Path;

/// A photo taken upright by a camera that stores 96 × 64 pixels and an orientation, 6.
const PHONE: &[u8] = include_bytes!("pictures/phone.jpg");

/// Where the file has its orientation.
const ORIENTATION: usize = 49;

fn photo(folder: &Path, orientation: u8) -> Array<u8> {
    let mut bytes = PHONE.to_vec();
    assert_eq!(bytes[ORIENTATION], 6);
    bytes[ORIENTATION] = orientation;
    let path = folder.join("photo.jpg");
    fs::write(&path, bytes).unwrap();
    read(&path).unwrap()
}

#[test]
fn photos_are_turned_as_the_camera_was_held() {
    let folder = tempfile::tempdir().unwrap();
    let stored = photo(folder.path(), 1);
    assert_eq!(stored.shape(), [64, 96, 3]);
    let (bottom, right) = (63, 95);
    // Where each pixel of the upright picture lies in the stored one: EXIF 2.3, table 6.
    for orientation in 1..=8 {
        let upright = photo(folder.path(), orientation);
        let sides = if orientation < 5 { [64, 96, 3] } else { [96, 64, 3] };
        assert_eq!(upright.shape(), sides, "{orientation}");
        for (at, &byte) in upright.indexed_iter() {
            let (y, x) = (at[0], at[1]);
            let (y, x) = match orientation {
                1 => (y, x),
                2 => (y, right - x),
                3 => (bottom - y, right - x),
                4 => (bottom - y, x),
                5 => (x, y),
                6 => (bottom - x, y),
                7 => (bottom - x, right - y),
                _ => (x, right - y),
            };
            assert_eq!(byte, stored[[y, x, at[2]]], "{orientation}: {at:?}");
        }
    }
    assert_ne!(photo(folder.path(), 6), photo(folder.path(), 8), "the picture tells its sides apart");
    assert_eq!(photo(folder.path(), 99), stored, "no orientation that there is");
}

/// A smooth picture: JPEG keeps it nearly.
fn smooth(height: usize, width: usize) -> Array<u8> {
    let byte = |i: usize| (3 * (i / 3 / width) + 2 * (i / 3 % width) + 40 * (i % 3)) as u8;
    Array::new((0..height * width * 3).map(byte).collect(), &[height, width, 3])
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let picture = smooth(24, 40);
    for name in ["a.png", "a.webp", "A.PNG"] {
        let path = folder.path().join(name);
        write(&path, &picture, &[]).unwrap();
        assert_eq!(read(&path).unwrap(), picture, "{name}");
    }
    for name in ["a.jpg", "a.jpeg"] {
        let path = folder.path().join(name);
        write(&path, &picture, &[]).unwrap();
        assert!(fs::read(&path).unwrap().starts_with(&[0xFF, 0xD8, 0xFF]), "{name}");
        let read = read(&path).unwrap();
        let apart = read.iter().zip(picture.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(read.shape() == picture.shape() && apart < Some(8), "{name}: {apart:?}");
    }
    // What a file is does not hang on its name.
    fs::rename(folder.path().join("a.webp"), folder.path().join("b.png")).unwrap();
    assert_eq!(read(folder.path().join("b.png")).unwrap(), picture);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5, "nothing is left beside them");
}

#[test]
fn texts_are_kept_in_a_png() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    write(&path, &smooth(8, 8), &[("parameters", "größe 8\nSteps: 1"), ("Software", "minai")]).unwrap();
    let reader =
        png::Decoder::new(std::io::BufReader::new(fs::File::open(&path).unwrap())).read_info().unwrap();
    let texts: Vec<_> = reader
        .info()
        .utf8_text
        .iter()
        .map(|text| (text.keyword.as_str(), text.get_text().unwrap()))
        .collect();
    assert_eq!(texts, [("parameters", "größe 8\nSteps: 1".to_owned()), ("Software", "minai".to_owned())]);
}

#[test]
fn what_cannot_be_read_or_written_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8], why: &str| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.path == path && error.what.contains(why), "{error}");
    };
    refused("text.png", b"no picture", "PNG, JPEG or WebP");
    refused("empty.jpg", b"", "PNG, JPEG or WebP");
    refused("gif.png", b"GIF89a\x01\x00\x01\x00\x00\x00\x00", "PNG, JPEG or WebP");
    refused("short.jpg", &PHONE[..200], "PNG, JPEG or WebP");
    // A header that says 60,000 × 60,000 pixels, and no pixels: no memory is taken for them.
    let mut header = b"IHDR\x00\x00\xEA\x60\x00\x00\xEA\x60\x08\x02\x00\x00\x00".to_vec();
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    header.extend(crc.sum().to_be_bytes());
    let large =
        [b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0D", &header[..], b"\x00\x00\x00\x00IDAT\x35\xAF\x06\x1E"].concat();
    refused("large.png", &large, "60000x60000");
    for path in [folder.path(), &folder.path().join("none.png")] {
        assert!(read(path).unwrap_err().what.contains("file"));
    }
    for name in ["a.gif", "a", "a.png.part", ".png"] {
        let path = folder.path().join(name);
        let error = check_name(&path).unwrap_err();
        assert!(error.path == path && error.what.contains(".png, .jpg, .jpeg, .webp"), "{error}");
        assert_eq!(write(&path, &smooth(8, 8), &[]).unwrap_err(), error);
        assert!(!path.exists());
    }
    let error = write(folder.path().join("no/such/a.png"), &smooth(8, 8), &[]).unwrap_err();
    assert!(error.what.contains("check the folder"), "{error}");
}

#[test]
#[should_panic(expected = "write: a picture is (height, width, 3), not [4, 4]")]
fn an_array_of_another_shape_is_no_picture() {
    write("never.png", &Array::new(vec![0; 16], &[4, 4]), &[]).unwrap();
}

#[test]
fn large_pictures_are_made_smaller() {
    // Twelve megapixels, upright and lying.
    assert_eq!(size_within((4032, 3024), 768 * 768, 8), (880, 664));
    assert_eq!(size_within((3024, 4032), 768 * 768, 8), (664, 880));
    assert_eq!(size_within((600, 805), 768 * 768, 8), (600, 800));
    assert_eq!(size_within((3, 100_000), 768 * 768, 8), (8, 100_000), "no side is 0");
    let picture = smooth(20, 40);
    let small = fill(&picture, (10, 10));
    assert_eq!(small.shape(), [10, 10, 3]);
    // The left and right quarters are cut off: the middle column stays in the middle.
    for y in 0..10 {
        let (found, wanted) = (small[[y, 5, 0]], picture[[2 * y, 20, 0]]);
        assert!(found.abs_diff(wanted) <= 4, "{y}: {found} {wanted}");
    }
}
