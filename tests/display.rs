//! What reaches a notebook's kernel, and what a terminal shows instead. Each test starts itself as a process of its own
//! and reads what that prints.

use minai::io::notebook::{Bundle, clear_output, display, text};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

const CHILD: &str = "MINAI_TEST_DISPLAY";

/// What a test prints in a process of its own, from the line `begin` to the line `end`.
fn lines(test: &str, live: bool) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env_remove("MINAI_DISPLAY");
    if live {
        command.env("MINAI_DISPLAY", "1");
    }
    let output = command.stderr(Stdio::piped()).output().expect("this test, once more");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines = text.lines().skip_while(|line| *line != "begin").skip(1);
    lines.take_while(|line| *line != "end").map(str::to_owned).collect()
}

fn in_child(work: impl FnOnce()) -> bool {
    let is_child = std::env::var_os(CHILD).is_some();
    if is_child {
        println!("\nbegin");
        work();
        println!("end");
    }
    is_child
}

/// The messages in marked lines; all other lines are an error.
fn messages(lines: &[String]) -> Vec<Value> {
    let message = |line: &String| {
        let json =
            line.strip_prefix("\u{1e}minai-display ").unwrap_or_else(|| panic!("a plain line: {line:?}"));
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    };
    lines.iter().map(message).collect()
}

fn show_two() {
    let html = "<b>line 1\nline 2 \u{1e}</b>".to_owned();
    let first = display(&Bundle { text: "first\nsecond".into(), rich: vec![("text/html", html)] });
    let second = display(&text(&Some("x")));
    first.update("changed");
    second.update(&[1.5, 2.0]);
    clear_output();
    first.clear();
}

#[test]
fn our_kernel_gets_marked_lines() {
    if in_child(show_two) {
        return;
    }
    let messages = messages(&lines("our_kernel_gets_marked_lines", true));
    let ops: Vec<&str> = messages.iter().map(|message| message["op"].as_str().expect("an op")).collect();
    assert_eq!(ops, ["display", "display", "update", "update", "clear", "update"]);
    let ids: Vec<&Value> = messages.iter().map(|message| &message["id"]).collect();
    assert!(
        ids[0].is_string() && ids[0] != ids[1] && ids[0] == ids[2] && ids[1] == ids[3] && ids[0] == ids[5]
    );
    let html = "<b>line 1\nline 2 \u{1e}</b>";
    assert_eq!(messages[0]["data"], json!({"text/plain": "first\nsecond", "text/html": html}));
    assert_eq!(messages[1]["data"], json!({"text/plain": "Some(\"x\")"}));
    assert_eq!(messages[2]["data"], json!({"text/plain": "changed"}));
    assert_eq!(messages[3]["data"], json!({"text/plain": "[1.5, 2.0]"}));
    assert_eq!(messages[4], json!({"op": "clear", "wait": true}));
    assert_eq!(messages[5]["data"], json!({"text/plain": ""}));
    assert!(messages[0]["metadata"].is_object());
}

#[test]
fn other_kernels_get_plain_lines() {
    if in_child(show_two) {
        return;
    }
    let lines = lines("other_kernels_get_plain_lines", false);
    assert_eq!(lines, ["first", "second", "Some(\"x\")", "changed", "[1.5, 2.0]"]);
}

#[cfg(all(feature = "nb", feature = "plot"))]
#[test]
fn pictures_and_tables_go_both_ways() {
    use minai::nb::{display, table};
    use minai::plot::{axes, line, plot};

    let show = || {
        let picture = display(&plot("A", axes("x", "y"), [line("", 0.., [1, 2])]));
        picture.update(&table(["a"], &[vec!["1 < 2".to_owned()]]));
        println!("block");
        table(["a"], &[vec!["1".to_owned()]]).evcxr_display();
    };
    if in_child(show) {
        return;
    }
    let lines = lines("pictures_and_tables_go_both_ways", true);
    let (marked, block) = lines.split_at(lines.iter().position(|line| line == "block").expect("a block"));
    let data: Vec<Value> = messages(marked).iter().map(|message| message["data"].clone()).collect();
    let text = |data: &Value, media_type: &str| data[media_type].as_str().expect("a text").to_owned();
    assert!(text(&data[0], "text/plain").starts_with("A. Chart of y against x"));
    let html = text(&data[0], "text/html");
    assert!(html.starts_with("<img width=\"") && html.contains(" alt=\"A. Chart of y against x"), "{html}");
    assert_eq!(text(&data[1], "text/html"), "<table><tr><th>a</th></tr><tr><td>1 &lt; 2</td></tr></table>");
    let begins: Vec<&str> =
        block.iter().filter_map(|line| line.strip_prefix("EVCXR_BEGIN_CONTENT ")).collect();
    assert_eq!(begins, ["text/plain", "text/html"]);
    assert_eq!(block.iter().filter(|line| *line == "EVCXR_END_CONTENT").count(), 2);
}

#[cfg(feature = "progress")]
mod progress {
    use super::*;
    use minai::callbacks::Metrics;
    use minai::datasets::DataLoaders;
    use minai::generator::Generator;
    use minai::learner::{Classifier, Learner};
    use minai::loader::{Labelled, LoaderOptions};
    use minai::nn::Linear;
    use minai::optim::Sgd;
    use minai::optimizer::Optimizer;
    use minai::progress::Progress;

    fn train(mut progress: Progress) {
        let mut rng = Generator::manual_seed(1);
        let data = Labelled::new(rng.randn(&[64, 2]), minai::array::Array::new(vec![0; 64], &[64]));
        let loaders =
            DataLoaders::new(data.clone(), data, LoaderOptions { batch_size: 8, ..Default::default() });
        let model = Linear::new(&mut rng, 2, 2);
        let optimizer = Optimizer::new(&model, Sgd::default());
        let mut learner = Learner::new("test", Classifier { model }, optimizer, rng);
        let mut metrics = Metrics::new();
        learner.fit(40, &loaders, (&mut progress, &mut metrics)).expect("training");
    }

    /// One display, whose last state says how training ended.
    #[test]
    fn a_bar_is_one_output() {
        if in_child(|| train(Progress::with_chart())) {
            return;
        }
        let lines = lines("progress::a_bar_is_one_output", true);
        let (marked, epochs): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| line.starts_with('\u{1e}'));
        assert_eq!(epochs.len(), 40, "a line of Metrics for each epoch");
        let messages = messages(&marked);
        assert!(messages.len() >= 2, "{messages:?}");
        assert!(
            messages[0]["op"] == "display" && messages[1..].iter().all(|message| message["op"] == "update")
        );
        assert!(messages.iter().all(|message| message["id"] == messages[0]["id"]));
        let last = messages.last().expect("a last one")["data"].clone();
        let (text, html) = (last["text/plain"].as_str().unwrap(), last["text/html"].as_str().unwrap());
        assert!(text.starts_with("epoch 40/40, batch 8 of 8: done after "), "{text}");
        assert!(
            html.contains("<progress value=\"320\" max=\"320\">") && html.contains("valid loss 0."),
            "{html}"
        );
        assert!(html.contains("src=\"data:image/svg+xml;utf8,%3Csvg"), "{html}");
    }

    /// A training that diverges ends its bar too.
    #[test]
    fn a_bar_says_that_training_diverged() {
        let diverge = || {
            let mut rng = Generator::manual_seed(1);
            let data = Labelled::new(rng.randn(&[64, 2]), minai::array::Array::new(vec![0; 64], &[64]));
            let loaders =
                DataLoaders::new(data.clone(), data, LoaderOptions { batch_size: 8, ..Default::default() });
            let model = Linear::new(&mut rng, 2, 2);
            let optimizer = Optimizer::new(&model, Sgd { lr: f32::INFINITY, ..Sgd::default() });
            let mut learner = Learner::new("test", Classifier { model }, optimizer, rng);
            assert!(learner.fit(2, &loaders, Progress::new()).is_err() && learner.diverged);
            assert!(learner.batch.is_none() && learner.predictions.is_none() && learner.loss.is_none());
        };
        if in_child(diverge) {
            return;
        }
        let lines = lines("progress::a_bar_says_that_training_diverged", true);
        let marked: Vec<_> = lines.into_iter().filter(|line| line.starts_with('\u{1e}')).collect();
        let last = messages(&marked).pop().expect("a last one")["data"].clone();
        let text = last["text/plain"].as_str().unwrap();
        assert!(text.starts_with("epoch 1/2, batch 1 of 8: diverged after "), "{text}");
    }

    /// Where there is neither our kernel nor a terminal, a short training says nothing.
    #[test]
    fn elsewhere_there_are_lines() {
        if in_child(|| train(Progress::new())) {
            return;
        }
        let lines = lines("progress::elsewhere_there_are_lines", false);
        assert_eq!(lines.len(), 40, "{lines:?}");
        assert!(
            lines.iter().all(|line| line.starts_with("epoch ") && line.contains("train loss")),
            "{lines:?}"
        );
    }
}
