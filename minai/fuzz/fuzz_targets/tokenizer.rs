//! CLIP's tokenizer: any text becomes tokens, which stand for the cleaned text; any vocabulary is read or refused. The
//! first byte chooses: a text, a vocabulary (two texts with a zero byte between), or the lines of a list of merges.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minai::tokenizer::Tokenizer;
use std::sync::LazyLock;

const CLIP: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/tiny-sd/tokenizer/bpe_simple_vocab_16e6.txt.gz");

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::open(CLIP).expect("the vocabulary in data"));

fn check(tokenizer: &Tokenizer, text: &str) {
    let (ids, cleaned) = (tokenizer.encode(text), tokenizer.clean(text));
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary_size()));
    let tokens = tokenizer.tokens(text);
    assert_eq!(tokens.cut.is_some(), ids.len() > 75);
    if cleaned.contains("<start_of_text>") || cleaned.contains("<end_of_text>") {
        return; // these stand for tokens with other names
    }
    let bare = |text: &str| text.replace([' ', '\u{345}'], "");
    assert_eq!(bare(&tokenizer.decode(&ids)), bare(&cleaned));
    tokenizer.decode(&ids[..ids.len() / 2]); // may end inside of a character
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match choice % 3 {
        0 => check(&TOKENIZER, &text),
        1 => {
            let (vocabulary, merges) = text.split_once('\0').unwrap_or((&text, ""));
            if let Ok(tokenizer) = Tokenizer::from_texts("v", vocabulary, "m", merges) {
                check(&tokenizer, "Hello, the world's thing: 日本 😀 &amp; more");
            }
        }
        _ => assert!(Tokenizer::from_merges("m", &text).is_err(), "so few merges cannot do"),
    }
});
