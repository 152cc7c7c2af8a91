//! CLIP's tokenizer against open_clip's: `golden/tokenizer.json` (or that in the folder that `MINAI_GOLDEN` names), and
//! `golden/tokenizer_texts.json` (or the file that `MINAI_TOKENIZER_TEXTS` names), texts of every script. And what it
//! makes of damaged vocabularies and of texts without end.

use minai::io::file::FileError;
use minai::tokenizer::{CONTEXT, Tokenizer, batch};
use minai_tests::files::Rng;
use minai_tests::reference::{folder, own};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const PACKED: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tiny-sd/tokenizer/bpe_simple_vocab_16e6.txt.gz");

static CLIP: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::open(PACKED).unwrap());

fn json(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// OpenAI's list, unpacked.
fn list() -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(PACKED).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn tokens_are_those_of_the_reference() {
    let cases = json(&folder().join("tokenizer.json"));
    assert!(!cases.is_empty());
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(CLIP.encode(text), ids(&case["ids"]), "{text:?}");
    }
}

#[test]
fn texts_of_every_script_are_cut_as_by_open_clip() {
    let own = || own().join("tokenizer_texts.json");
    let cases = json(&std::env::var_os("MINAI_TOKENIZER_TEXTS").map_or_else(own, PathBuf::from));
    assert!(cases.len() >= 500);
    let mut wrong = 0;
    for case in &cases {
        let (text, wanted) = (case[0].as_str().unwrap(), ids(&case[1]));
        let found = CLIP.encode(text);
        if found != wanted {
            wrong += 1;
            println!("{text:?}\n  {:?}\n  {:?}", CLIP.decode(&found), CLIP.decode(&wanted));
        }
    }
    assert_eq!(wrong, 0, "of {} texts", cases.len());
}

/// `vocab.json` and `merges.txt`, as published models have them.
fn write_pair(folder: &Path) -> (String, String) {
    let text = list();
    let merges: Vec<&str> = text.lines().skip(1).take(48_894).collect();
    let merges_txt = format!("#version: 0.2\n{}\n", merges.join("\n"));
    // The numbers of the bytes as OpenAI's code makes them, here by another way: the printable ones, then the others.
    let printable: Vec<u32> = (33..=126).chain(161..=172).chain(174..=255).collect();
    let other = (0..256_u32).filter(|byte| !printable.contains(byte)).count() as u32;
    let signs: Vec<char> =
        printable.iter().copied().chain(256..256 + other).filter_map(char::from_u32).collect();
    assert_eq!(signs.len(), 256);
    let names = signs.iter().map(char::to_string).chain(signs.iter().map(|sign| format!("{sign}</w>")));
    let names = names.chain(merges.iter().map(|merge| merge.replace(' ', "")));
    let names = names.chain(["<|startoftext|>".to_owned(), "<|endoftext|>".to_owned()]);
    let vocabulary: serde_json::Map<String, Value> =
        names.zip(0..).map(|(name, id)| (name, Value::from(id))).collect();
    let vocab_json = serde_json::to_string(&vocabulary).unwrap();
    fs::write(folder.join("vocab.json"), &vocab_json).unwrap();
    fs::write(folder.join("merges.txt"), &merges_txt).unwrap();
    (vocab_json, merges_txt)
}

#[test]
fn both_forms_of_the_vocabulary_give_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path());
    let texts = json(&own().join("tokenizer_texts.json"));
    for path in [folder.path().to_owned(), folder.path().join("vocab.json"), folder.path().join("merges.txt")]
    {
        let pair = Tokenizer::open(path).unwrap();
        assert_eq!((pair.vocabulary_size(), pair.start(), pair.end()), (49_408, 49_406, 49_407));
        for case in &texts {
            assert_eq!(pair.encode(case[0].as_str().unwrap()), ids(&case[1]));
        }
    }
    let gz_folder = Tokenizer::open(Path::new(PACKED).parent().unwrap()).unwrap();
    assert_eq!(gz_folder.encode("a photo of a cat"), CLIP.encode("a photo of a cat"));
    // Unpacked, and under another name.
    let plain = folder.path().join("list.txt");
    fs::write(&plain, list()).unwrap();
    assert_eq!(Tokenizer::open(plain).unwrap().encode("Straße 😀"), CLIP.encode("Straße 😀"));
}

#[test]
fn decoding_gives_the_cleaned_text_back() {
    for text in ["a photograph of an astronaut riding a horse", "naïve 中文 😀", "12 : 30"] {
        let again = CLIP.decode(&CLIP.encode(text));
        assert_eq!(again.replace(' ', ""), CLIP.clean(text).replace(' ', ""));
        assert!(again.ends_with(' '));
    }
    assert_eq!(CLIP.decode(&CLIP.encode("a cat")), "a cat ");
    assert_eq!(CLIP.decode(&[CLIP.start(), 320, 2368, CLIP.end()]), "<|startoftext|>a cat <|endoftext|>");
    assert_eq!(CLIP.decode(&[49_408, u32::MAX]), "\u{FFFD}\u{FFFD}");
    let parts = CLIP.encode("𓀀");
    assert!(parts.len() > 1 && CLIP.decode(&parts[..1]) == "\u{FFFD}", "a part of a character");
    // Every byte, alone and at a word's end.
    for id in 0..512 {
        CLIP.decode(&[id]);
    }
}

#[test]
fn prompts_are_filled_up_or_cut_to_77() {
    let empty = CLIP.tokens("");
    assert!(empty.cut.is_none() && empty.ids[0] == CLIP.start());
    assert!(empty.ids[1..].iter().all(|&id| id == CLIP.end()));
    let fits = CLIP.tokens(&"cat ".repeat(75));
    assert_eq!((fits.ids[75], fits.ids[76], fits.cut), (2368, CLIP.end(), None));
    let cut = CLIP.tokens(&format!("{}one dog too many", "cat ".repeat(74)));
    assert_eq!((cut.ids[74], cut.ids[75], cut.ids[76]), (2368, CLIP.encode("one")[0], CLIP.end()));
    let warning = cut.cut.unwrap();
    assert!(warning.contains("78 tokens") && warning.contains("75 count"), "{warning}");
    assert!(warning.ends_with("left out: \"dog too many\""), "{warning}");
    let both = batch(&[CLIP.tokens("a cat"), empty]);
    assert_eq!(both.shape(), [2, CONTEXT]);
    assert_eq!((both[[0, 1]], both[[0, 2]], both[[1, 1]]), (320, 2368, 49_407));
}

/// 10,000 words, a word of 100,000 letters, entities inside of entities: done before you notice, and right.
#[test]
fn long_prompts() {
    let words = CLIP.encode(&"astronaut ".repeat(10_000));
    assert_eq!(words, CLIP.encode("astronaut").repeat(10_000));
    let text = CLIP.tokens(&"astronaut ".repeat(10_000));
    assert!(text.cut.is_some_and(|warning| warning.len() < 2_000));
    for letters in ["a".repeat(100_000), "abcdefghij".repeat(10_000), "ü".repeat(50_000)] {
        let ids = CLIP.encode(&letters);
        assert_eq!(CLIP.decode(&ids), letters + " ");
    }
    let entities = CLIP.encode(&format!("&{}lt;", "amp;".repeat(25_000)));
    assert!(!entities.is_empty());
    assert!(!CLIP.encode(&"\u{301}".repeat(50_000)).is_empty());
}

fn assert_helpful(error: &FileError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(text.starts_with(&*error.path.to_string_lossy()) && text.contains("; "), "{text:?}");
    assert!(text.len() < 600, "{text:?}");
}

#[test]
fn vocabularies_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let open = |path: &Path| Tokenizer::open(path).map(drop).unwrap_err();
    assert_helpful(&open(folder.path()), &["vocab.json", "bpe_simple_vocab_16e6.txt.gz"]);
    assert_helpful(&open(&at("no.gz")), &["no.gz", "fetch"]);
    let (vocabulary, merges) = write_pair(folder.path());
    fs::remove_file(at("merges.txt")).unwrap();
    assert_helpful(&open(folder.path()), &["merges.txt"]);
    fs::write(at("merges.txt"), &merges).unwrap();
    let with = |name: &str, text: &str| {
        let good = fs::read(at(name)).unwrap();
        fs::write(at(name), text).unwrap();
        let error = open(folder.path());
        fs::write(at(name), good).unwrap();
        error
    };
    assert_helpful(&with("vocab.json", ""), &["vocab.json", "no list of tokens"]);
    assert_helpful(&with("vocab.json", "[1, 2]"), &["no list of tokens"]);
    assert_helpful(&with("vocab.json", &vocabulary[..1000]), &["no list of tokens"]);
    assert_helpful(&with("vocab.json", "{}"), &["vocab.json", "no token"]);
    assert_helpful(
        &with("vocab.json", &vocabulary.replace("\"cat</w>\":2368,", "")),
        &["vocab.json", "only 49407 tokens"],
    );
    assert_helpful(&with("vocab.json", &vocabulary.replace(":2368,", ":2367,")), &["one number"]);
    assert_helpful(&with("vocab.json", &vocabulary.replace(":2368,", ":4000000000,")), &["4000000000"]);
    assert_helpful(&with("vocab.json", &vocabulary.replace("<|endoftext|>", "<|end|>")), &["<|endoftext|>"]);
    assert_helpful(&with("merges.txt", "#version: 0.2\ni n\nt\n"), &["merges.txt", "line 3", "no pair"]);
    assert_helpful(&with("merges.txt", "#version: 0.2\ni n\ni n\n"), &["merge 2", "twice"]);
    assert_helpful(&with("merges.txt", "in g</w>\n"), &["merge 1", "out of order"]);
    assert_helpful(&with("merges.txt", "x qqqqq\n"), &["vocab.json", "no token"]);
    fs::write(at("merges.txt"), [0xFF, 0xFE, 0]).unwrap();
    assert_helpful(&open(folder.path()), &["no text"]);

    let packed = fs::read(PACKED).unwrap();
    for cut in [0, 2, 100, packed.len() / 2, packed.len() - 1] {
        fs::write(at("cut.gz"), &packed[..cut]).unwrap();
        assert_helpful(&open(&at("cut.gz")), &["cut.gz", "fetch"]);
    }
    fs::write(at("page.gz"), "<html>\n<body>\n").unwrap();
    assert_helpful(&open(&at("page.gz")), &["line 1", "no pair"]);
    fs::write(at("short.txt"), "#version: 0.2\ni n\nt h\n").unwrap();
    assert_helpful(&open(&at("short.txt")), &["2 merges", "48894"]);
    let bomb = minai_tests::files::gzip(&vec![b'a'; 100 << 20]);
    fs::write(at("bomb.gz"), bomb).unwrap();
    assert_helpful(&open(&at("bomb.gz")), &["16 MiB"]);
}

/// 5,000 damaged small vocabularies: read or refused; and what is read can encode and decode anything.
#[test]
fn mutated_vocabularies_never_panic() {
    let signs = {
        let text = fs::read_to_string(own().join("tokenizer_texts.json")).unwrap();
        assert!(text.len() > 1_000);
        let mut map: HashMap<u32, String> = HashMap::new();
        let merges = list();
        for (id, sign) in (33..=126)
            .chain(161..=172)
            .chain(174..=255)
            .chain(256..324)
            .filter_map(char::from_u32)
            .enumerate()
        {
            map.insert(id as u32, sign.to_string());
            map.insert(id as u32 + 256, format!("{sign}</w>"));
        }
        assert_eq!(map.len(), 512);
        (map, merges.lines().skip(1).take(20).map(str::to_owned).collect::<Vec<_>>())
    };
    let (mut names, merges) = signs;
    for (k, name) in merges.iter().map(|merge| merge.replace(' ', "")).enumerate() {
        names.insert(512 + k as u32, name);
    }
    names.insert(532, "<|startoftext|>".into());
    names.insert(533, "<|endoftext|>".into());
    let entries: Vec<String> =
        (0..534).map(|id| format!("{}:{id}", Value::from(names[&id].clone()))).collect();
    let (vocabulary, merges) = (format!("{{{}}}", entries.join(",")), merges.join("\n"));
    assert!(Tokenizer::from_texts("v", &vocabulary, "m", &merges).is_ok());
    let mut accepted = 0;
    for seed in 0..5_000 {
        let mut rng = Rng::new(seed);
        let mut texts = [vocabulary.clone().into_bytes(), merges.clone().into_bytes()];
        let bytes = &mut texts[rng.below(2)];
        for _ in 0..=rng.below(3) {
            let (at, special) = (rng.below(bytes.len()), b" \n#{}[]\",:0915<>/w\\");
            match rng.below(4) {
                0 => bytes[at] = special[rng.below(special.len())],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, special[rng.below(special.len())]),
                _ => bytes.truncate(at + 1),
            }
        }
        let [vocabulary, merges] = texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match Tokenizer::from_texts("v.json", &vocabulary, "m.txt", &merges) {
            Err(error) => assert_helpful(&error, &[]),
            Ok(tokenizer) => {
                let text = "the inherent thing: Ünïcödé 😀 <|endoftext|>";
                let again = tokenizer.decode(&tokenizer.encode(text));
                assert_eq!(again.replace(' ', ""), tokenizer.clean(text).replace(' ', ""));
                accepted += 1;
            }
        }
    }
    assert!((10..4_000).contains(&accepted), "{accepted} accepted");
}

/// `tokenizer.json`, as transformers 5 writes it: all in one, merges as pairs, start and end among the added tokens.
fn write_whole(folder: &Path, as_pairs: bool) {
    let pairs = tempfile::tempdir().unwrap();
    let (vocabulary, merges) = write_pair(pairs.path());
    let merges: Vec<Value> = merges
        .lines()
        .filter(|line| !line.starts_with("#version"))
        .map(|line| match line.split_once(' ') {
            Some((one, two)) if as_pairs => serde_json::json!([one, two]),
            _ => serde_json::json!(line),
        })
        .collect();
    let vocabulary: Value = serde_json::from_str(&vocabulary).unwrap();
    let added = serde_json::json!([{ "id": 49406, "content": "<|startoftext|>", "special": true },
        { "id": 49407, "content": "<|endoftext|>", "special": true }]);
    let json = serde_json::json!({ "version": "1.0", "added_tokens": added,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": merges } });
    fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
}

#[test]
fn all_in_one_file_gives_the_same_tokens() {
    let text = "A photo of a cat's naïve 42-year-old astronaut, #3!";
    let expected = Tokenizer::from_merges("list", &list()).unwrap().encode(text);
    for as_pairs in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        write_whole(folder.path(), as_pairs);
        for path in [folder.path().to_owned(), folder.path().join("tokenizer.json")] {
            assert_eq!(Tokenizer::open(path).unwrap().encode(text), expected);
        }
        for (text, part) in [
            ("{}", "no vocabulary"),
            ("[", "no JSON"),
            ("{\"model\": {\"vocab\": {}, \"merges\": []}}", "no token"),
        ] {
            fs::write(folder.path().join("tokenizer.json"), text).unwrap();
            assert_helpful(&Tokenizer::open(folder.path()).err().unwrap(), &["tokenizer.json", part]);
        }
    }
}

#[test]
fn prompts_are_filled_up_with_what_the_model_says() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path());
    let plain = Tokenizer::open(folder.path()).unwrap();
    let end = plain.end();
    assert!(plain.tokens("a cat").ids[3..].iter().all(|&id| id == end));
    // As Stable Diffusion 2 has it, in both forms in which transformers writes it: token 0, inside of a word.
    for (file, settings) in [
        ("tokenizer_config.json", "{\"pad_token\": \"!\"}"),
        ("special_tokens_map.json", "{\"pad_token\": {\"content\": \"!\", \"lstrip\": false}}"),
    ] {
        fs::write(folder.path().join(file), settings).unwrap();
        let tokens = Tokenizer::open(folder.path()).unwrap().tokens("a cat");
        assert_eq!(tokens.ids[..4], [plain.start(), plain.encode("a")[0], plain.encode("cat")[0], end]);
        assert!(tokens.ids[4..].iter().all(|&id| id == 0), "{:?}", tokens.ids);
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join("tokenizer_config.json"), "{\"pad_token\": \"<nothing>\"}").unwrap();
    assert_helpful(&Tokenizer::open(folder.path()).err().unwrap(), &["tokenizer_config.json", "<nothing>"]);
}

#[test]
fn an_added_token_is_one_token() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path());
    let added = "{\"<my-cat>\": 49408, \"<my-cat>s\": 49409, \"<|endoftext|>\": 49407}";
    fs::write(folder.path().join("added_tokens.json"), added).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let (photo, red) = (tokenizer.encode("a photo of"), tokenizer.encode(", red"));
    assert_eq!(tokenizer.encode("a photo of <my-cat>, red"), [&photo[..], &[49408], &red].concat());
    assert_eq!(tokenizer.encode("<my-cat>s<my-cat>"), [49409, 49408]);
    assert_eq!(tokenizer.decode(&[photo[0], 49408]), "a <my-cat> ");
    assert_eq!(tokenizer.vocabulary_size(), 49410);
    for wrong in ["{\"\": 49408}", "{\"<a>\": -1}", "{\"<a>\": \"b\"}"] {
        fs::write(folder.path().join("added_tokens.json"), wrong).unwrap();
        assert_helpful(
            &Tokenizer::open(folder.path()).err().unwrap(),
            &["added_tokens.json", "no name or no number"],
        );
    }
}
