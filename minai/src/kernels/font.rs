//! The font in which charts are written, embedded so that no system font is needed.

/// DejaVu Sans (TrueType), cut down to Latin, Greek, super- and subscripts, arrows and mathematical signs.
///
/// `assets/README.md` says how it was made, `assets/DejaVuSans-LICENSE.txt` holds its licence.
pub const DEJAVU_SANS: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");
