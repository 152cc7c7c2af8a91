// Owned by notebooks/31_tokenizer.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash d66891204deef9ab
//! What notebooks/31_tokenizer.ipynb claims.

use minai::tokenizer::{CONTEXT, Tokenizer, batch, learn_vocabulary};

// %% notebooks/31_tokenizer.ipynb encode-test
#[test]
fn tokens_are_open_clips() -> Result<(), Box<dyn std::error::Error>> {
    {
        let clip = Tokenizer::open("../data/tiny-sd/tokenizer").unwrap();
        assert_eq!(clip.encode("a photo of a cat"), [320, 1125, 539, 320, 2368]);
        let naive = [1097, 35689, 563, 15304, 2005, 25466, 73, 21259, 13230, 256];
        assert_eq!(clip.encode("Naïve café — déjà vu!"), naive);
        let emoji = [16327, 12832, 13542, 537, 19759, 255, 29032, 485, 4160];
        assert_eq!(clip.encode("emoji 😀🚀 and 中文 text"), emoji);
        assert_eq!(clip.encode(""), [0_u32; 0]);
        assert_eq!(clip.encode("<start_of_text>a"), [49406, 320]);
        assert_eq!(clip.encode("&amp;lt;b&GT;"), clip.encode("<B>"));
        let text = "Unphotographable 猫 don't 😀!";
        assert_eq!(clip.decode(&clip.encode(text)), "unphotographable 猫 don 't 😀! ");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/31_tokenizer.ipynb tokens-test
#[test]
fn prompts_are_filled_up_or_cut() -> Result<(), Box<dyn std::error::Error>> {
    {
        let clip = Tokenizer::open("../data/tiny-sd/tokenizer").unwrap();
        let empty = clip.tokens("");
        assert!(empty.ids[0] == 49406 && empty.ids[1..].iter().all(|&id| id == 49407) && empty.cut.is_none());
        assert_eq!(clip.tokens(&"cat ".repeat(75)).cut, None);
        let cut = clip.tokens(&format!("{} dog", "cat ".repeat(75)));
        assert!(cut.cut.unwrap().ends_with("left out: \"dog\""));
        assert_eq!((cut.ids[75], cut.ids[76]), (2368, 49407));
        assert_eq!(batch(&[empty, clip.tokens("a")]).shape(), [2, CONTEXT]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/31_tokenizer.ipynb le-test
#[test]
fn a_learned_vocabulary_makes_whole_words_and_reads_everything() -> Result<(), Box<dyn std::error::Error>> {
    {
        let (vocabulary, merges) = learn_vocabulary(["red apple", "green apple", "Red Apples"], 100);
        let own = Tokenizer::from_texts("vocab.json", &vocabulary, "merges.txt", &merges)?;
        assert_eq!(own.encode("red green APPLE").len(), 3);
        assert_eq!(own.encode("apples").len(), 1);
        assert!(own.encode("grape").len() > 1);
        for text in ["red apple ", "a猫 😀 ", "don 't "] {
            assert_eq!(own.decode(&own.encode(text)), text);
        }
        assert_eq!(learn_vocabulary(["red apple"], 0).1, "#version: 0.2\n");
    }
    println!("passed");
    Ok(())
}
