//! A request to stop ends loops after the step at hand, and leaves everything whole.
//!
//! Each test starts itself as a process of its own, whose environment names a file, as the course's kernel does; the
//! parent writes the byte.

use minai::array::Array;
use minai::callbacks::{Metrics, Recorder};
use minai::checkpoint::Checkpoint;
use minai::datasets::DataLoaders;
use minai::generator::Generator;
use minai::io::interrupt;
use minai::learner::{Callback, Classifier, Flow, Learner, Task};
use minai::loader::{DataLoader, Labelled, LoaderOptions};
use minai::nn::{Linear, Mode, Relu, Sequential};
use minai::optim::AdamW;
use minai::optimizer::Optimizer;
use minai::state::{optimizer_state, state_dict};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const FOLDER: &str = "MINAI_TEST_INTERRUPT_FOLDER";
/// 7 batches in each: the last one is not full.
const EPOCHS: usize = 4;

/// Starts this test again in a process of its own, which finds the folder in its environment.
fn start(test: &str, folder: &Path) -> Child {
    fs::write(folder.join("byte"), [0]).expect("a file");
    Command::new(std::env::current_exe().expect("this test"))
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .env("MINAI_INTERRUPT", folder.join("byte"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test, once more")
}

/// Writes the byte in place, as the kernel does: the file keeps its length.
fn set(folder: &Path, byte: u8) {
    let mut file = File::options().write(true).open(folder.join("byte")).expect("the file");
    file.write_all(&[byte]).expect("a byte");
}

/// Answers each line of the child that says `ready` by setting the byte and saying so. Gives all its lines.
fn attend(mut child: Child, folder: &Path) -> Vec<String> {
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        if line.ends_with("ready") {
            set(folder, 1);
            writeln!(stdin, "set").expect("a child that listens");
        }
        lines.push(line);
    }
    let status = child.wait().expect("a process");
    assert!(status.success(), "the child failed: {status}\n{}", lines.join("\n"));
    lines
}

/// The child's side: asks for an interrupt, and waits until it has been made.
fn ask() {
    println!("\nready");
    std::io::stdout().flush().expect("standard output");
    std::io::stdin().read_line(&mut String::new()).expect("an answer");
}

fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Asks for an interrupt when so many batches of an epoch's set are done, and counts what comes later.
#[derive(Default)]
struct Interrupt {
    at: Option<(usize, Mode, usize)>,
    later: usize,
    ends: usize,
}

impl<T: Task> Callback<T> for Interrupt {
    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        self.later += usize::from(interrupt::requested());
        if self.at == Some((learner.epoch, learner.mode, learner.index)) {
            ask();
        }
        Flow::Continue
    }

    fn after_fit(&mut self, _: &mut Learner<T>) -> Flow {
        self.ends += 1;
        Flow::Continue
    }
}

fn data() -> (Labelled, DataLoaders<Labelled>) {
    let x = Generator::manual_seed(1).randn(&[100, 4]);
    let y = (0..100).map(|i| i64::from(x[[i, 0]] > 0.0)).collect();
    let data = Labelled::new(x, minai::array::Array::new(y, &[100]));
    let options = LoaderOptions { batch_size: 16, workers: 2, ..LoaderOptions::default() };
    (data.clone(), DataLoaders::new(data.clone(), data, options))
}

fn learner(seed: u64) -> Learner<Classifier<Sequential>> {
    let mut rng = Generator::manual_seed(seed);
    let model = Sequential::new().add(Linear::new(&mut rng, 4, 8)).add(Relu).add(Linear::new(&mut rng, 8, 2));
    let optimizer = Optimizer::new(&model, AdamW::default());
    Learner::new("test", Classifier { model }, optimizer, rng)
}

/// An interrupted training is whole, and a training that goes on from its checkpoint ends with the bits of one that was
/// never interrupted.
#[test]
fn fit_ends_whole_and_can_go_on() {
    const NAME: &str = "fit_ends_whole_and_can_go_on";
    let Some(folder) = folder() else {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = attend(start(NAME, folder.path()), folder.path());
        assert!(lines.iter().any(|line| line.ends_with("interrupted in epoch 2 of 4, before batch 4 of 7")));
        assert!(lines.iter().any(|line| line.ends_with("interrupted in epoch 1 of 4, before batch 1 of 7")));
        return;
    };
    let (_, loaders) = data();
    let (mut whole, mut rows, mut losses) = (learner(1), Metrics::new(), Recorder::default());
    whole.fit(EPOCHS, &loaders, (&mut rows, &mut losses)).expect("training");
    assert!(!whole.interrupted);

    let path = folder.join("checkpoint.safetensors");
    let mut first = learner(1);
    first.checkpoint = Some(Checkpoint::new(&path));
    let mut stop = Interrupt { at: Some((1, Mode::Train, 2)), ..Interrupt::default() };
    let (mut some_rows, mut some_losses) = (Metrics::new(), Recorder::default());
    first
        .fit(EPOCHS, &loaders, (&mut some_rows, &mut some_losses, &mut stop))
        .expect("an interrupted training");
    assert!(first.interrupted && first.batch.is_none() && first.loss.is_none());
    assert_eq!((stop.later, stop.ends, first.epoch), (0, 1, 1), "no batch later, but an end");
    assert_eq!(some_losses.losses, losses.losses[..10], "ten steps");
    assert_eq!(first.optimizer.steps(), 10);
    assert!(first.optimizer.parameters().iter().all(|(_, p)| p.grad().is_none()), "no gradients are left");

    // As long as the request stands, nothing begins.
    let mut none = Interrupt::default();
    let mut other = learner(3);
    other.fit(EPOCHS, &loaders, &mut none).expect("an interrupted training");
    assert!(other.interrupted && none.ends == 1 && other.optimizer.steps() == 0);
    assert_eq!(state_dict(other.task.model()), state_dict(learner(3).task.model()));

    set(&folder, 0);
    let mut second = learner(2);
    second.resume(&path).expect("the checkpoint that the interrupt left");
    assert_eq!(state_dict(second.task.model()), state_dict(first.task.model()));
    assert_eq!(optimizer_state(&second.optimizer), optimizer_state(&first.optimizer));
    let (mut rest_rows, mut rest_losses) = (Metrics::new(), Recorder::default());
    second.fit(EPOCHS, &loaders, (&mut rest_rows, &mut rest_losses)).expect("training");
    assert!(!second.interrupted);
    assert_eq!(state_dict(second.task.model()), state_dict(whole.task.model()));
    assert_eq!((rest_rows.rows, rest_losses), (rows.rows, losses));
}

/// While it validates, training is stopped too.
#[test]
fn fit_ends_in_the_validation() {
    const NAME: &str = "fit_ends_in_the_validation";
    if folder().is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = attend(start(NAME, folder.path()), folder.path());
        assert!(lines.iter().any(|line| line.ends_with("interrupted in epoch 1 of 4, while validating")));
        return;
    }
    let (_, loaders) = data();
    let mut stop = Interrupt { at: Some((0, Mode::Eval, 0)), ..Interrupt::default() };
    let (mut metrics, mut learner) = (Metrics::new(), learner(1));
    learner.fit(EPOCHS, &loaders, (&mut metrics, &mut stop)).expect("an interrupted training");
    assert!(learner.interrupted && metrics.rows.is_empty());
    assert_eq!((stop.later, stop.ends, learner.optimizer.steps()), (0, 1, 7));
}

#[test]
fn loaders_and_plain_loops_end() {
    const NAME: &str = "loaders_and_plain_loops_end";
    let Some(folder) = folder() else {
        let folder = tempfile::tempdir().expect("a folder");
        attend(start(NAME, folder.path()), folder.path());
        return;
    };
    let (data, _) = data();
    for workers in [0, 1, 3] {
        let loader = DataLoader::new(
            data.clone(),
            LoaderOptions { batch_size: 10, workers, ..LoaderOptions::default() },
        );
        let mut seen = 0;
        for _ in loader.epoch(&mut Generator::manual_seed(1)) {
            seen += 1;
            if seen == 3 {
                ask();
            }
        }
        assert_eq!(seen, 3, "{workers} workers");
        set(&folder, 0);
        assert_eq!(loader.epoch(&mut Generator::manual_seed(1)).count(), 10);
    }
    let model = learner(1).task.model;
    let mut optimizer = Optimizer::new(&model, AdamW::default());
    let loader = DataLoader::new(data, LoaderOptions { batch_size: 10, ..LoaderOptions::default() });
    let images = minai::datasets::Images::new(
        Array::new(vec![0.0; 40], &[10, 1, 2, 2]),
        Array::new(vec![0; 10], &[10]),
    );
    let images = DataLoader::new(images, LoaderOptions::default());
    ask();
    // Not even a first batch comes.
    let (answers, classes) =
        minai::ensemble::probabilities(&model, &images, &[minai::ensemble::View::default()]);
    assert!(minai::training::accuracy(&answers.into(), &classes).is_nan());
    let (predictions, targets): (_, Array<i64>) = learner(1).predict(&loader);
    assert!(predictions.shape() == [0] && targets.is_empty());
    let both = (&loader, &loader);
    let scores = minai::training::fit(3, &model, &mut optimizer, both, &mut Generator::manual_seed(1));
    assert!(scores.is_empty() && optimizer.steps() == 0);
}

#[cfg(feature = "nb")]
#[test]
fn timeit_reports_what_it_has() {
    const NAME: &str = "timeit_reports_what_it_has";
    let Some(folder) = folder() else {
        let folder = tempfile::tempdir().expect("a folder");
        attend(start(NAME, folder.path()), folder.path());
        return;
    };
    // Each call takes long enough to be a run of its own: one to find that out, then seven.
    let long = || std::thread::sleep(std::time::Duration::from_millis(120));
    for (calls, runs) in [(1, 1), (2, 1), (4, 3)] {
        let mut made = 0;
        let timing = minai::nb::timeit(|| {
            long();
            made += 1;
            if made == calls {
                ask();
            }
        });
        assert_eq!((made, timing.runs, timing.loops), (calls, runs, 1), "{timing}");
        assert!(timing.mean >= 0.12, "{timing}");
        set(&folder, 0);
    }
}
