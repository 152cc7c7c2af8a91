//! Has somebody asked this program to stop? Long loops look, and end with what they have.
//!
//! There is no signal handler. The course's kernel names a file in the environment variable `MINAI_INTERRUPT`, and
//! writes the byte 1 into it when somebody interrupts the cell. Who looks and finds 1 makes it 2, so that the kernel
//! knows that the request was seen and waits for the loop's last step. Where no file is named there is never a request.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// The environment variable that names the file.
const VARIABLE: &str = "MINAI_INTERRUPT";

/// Whether somebody asked to stop. It stays true until the kernel takes the request back, at the latest for the next
/// cell. As cheap as reading a byte: it may be asked in every round of a loop that takes a microsecond.
pub fn requested() -> bool {
    // Which file it is does not change while a program runs, so the mapping is made once.
    static FILE: OnceLock<Option<Byte>> = OnceLock::new();
    FILE.get_or_init(named).as_ref().is_some_and(Byte::is_set)
}

/// The file that the environment names, if it names one.
fn named() -> Option<Byte> {
    let path = std::env::var_os(VARIABLE)?;
    match Byte::map(Path::new(&path)) {
        Ok(byte) => Some(byte),
        Err(error) => {
            let path = path.display();
            eprintln!(
                "{VARIABLE}: cannot map {path}: {error}. Training and samplers will not end when asked to."
            );
            None
        }
    }
}

/// The first byte of a file that another process writes to: 0, or [`ASKED`], or [`SEEN`].
struct Byte(MmapRaw);

const ASKED: u8 = 1;
const SEEN: u8 = 2;

impl Byte {
    fn map(path: &Path) -> io::Result<Byte> {
        let file = File::options().read(true).write(true).open(path)?;
        if file.metadata()?.len() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty, one byte is wanted"));
        }
        Ok(Byte(MmapOptions::new().len(1).map_raw(&file)?))
    }

    fn is_set(&self) -> bool {
        // SAFETY: the mapping is one byte long, and lives as long as `self`; a byte is always aligned. Another process
        // may write to it at any time, hence the atomic type. Whoever shortened the file would end this process with
        // SIGBUS: the kernel, whose file it is, never does.
        let byte = unsafe { AtomicU8::from_ptr(self.0.as_mut_ptr()) };
        if byte.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // Fails, as it should, where the request was seen before or was taken back this moment.
        let _ = byte.compare_exchange(ASKED, SEEN, Ordering::Relaxed, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn a_byte_is_seen_when_it_changes() {
        let path = std::env::temp_dir().join(format!("minai-interrupt-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        assert!(Byte::map(&path).is_err(), "an empty file");
        file.write_all(&[0]).unwrap();
        let byte = Byte::map(&path).unwrap();
        for value in [0, 1, 0, 255] {
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&[value]).unwrap();
            assert_eq!(byte.is_set(), value != 0);
            let told = std::fs::read(&path).unwrap();
            assert_eq!(
                told,
                [if value == ASKED { SEEN } else { value }],
                "who asked learns that it was seen"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Byte::map(&path).is_err(), "no file");
    }
}
