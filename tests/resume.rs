//! A training that is killed again and again, at random points, ends with the same bits as one that was left alone.
//!
//! The test starts itself as a process of its own (the environment says so), kills that, and starts it again.

use minai::augment::{Augmented, RandomCrop, RandomErase, RandomFlip};
use minai::callbacks::{Metrics, Recorder};
use minai::checkpoint::Checkpoint;
use minai::datasets::{DataLoaders, ImageBatch, SAMPLE_SPLIT, load_fashion};
use minai::dropout::Dropout;
use minai::generator::Generator;
use minai::learner::{Callback, Classifier, Flow, Learner};
use minai::loader::LoaderOptions;
use minai::nn::{Linear, Sequential};
use minai::optim::AdamW;
use minai::optimizer::Optimizer;
use minai::resnet::{ConvNorm, GlobalAveragePool, ResBlock};
use minai::schedule::OneCycle;
use minai::state::{Metadata, Value, save, state_dict};
use minai::tensor::Tensor;
use minai::training::accuracy;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const NAME: &str = "killed_training_ends_with_the_same_bits";
const FOLDER: &str = "MINAI_TEST_RESUME_FOLDER";
/// 12 batches of 20 images in each epoch.
const EPOCHS: usize = 3;

/// Says on standard output that a batch is done.
struct Say;

impl Callback<Classifier<Sequential>> for Say {
    fn after_batch(&mut self, learner: &mut Learner<Classifier<Sequential>>) -> Flow {
        println!("\nbatch {} {:?} {}", learner.epoch, learner.mode, learner.index);
        std::io::stdout().flush().expect("standard output");
        Flow::Continue
    }
}

/// Everything that could depend on the past is in it: moments of the optimiser, a schedule, running statistics, dropout,
/// shuffling, augmentation in other threads, metrics and a recorder.
fn train(folder: &Path) {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/fashion-mnist-sample");
    let fashion = load_fashion(&sample, &[SAMPLE_SPLIT]).expect("the sample").normalized();
    let (train, _) = fashion.train.split_at(233); // the last batch is not full
    let (valid, _) = fashion.test.split_at(50);
    let rng = &mut Generator::manual_seed(42);
    let model = Sequential::new()
        .add(ConvNorm::new(rng, 1, 4, 2))
        .add(ResBlock::new(rng, 4, 6, 2))
        .add(GlobalAveragePool)
        .add(Dropout { p: 0.2 })
        .add(Linear::new(rng, 6, 10));
    let optimizer = Optimizer::new(&model, AdamW::default());
    let mut learner = Learner::new("resume", Classifier { model }, optimizer, Generator::manual_seed(7));
    let checkpoint = folder.join("checkpoint.safetensors");
    if checkpoint.exists() {
        learner.resume(&checkpoint).expect("a whole checkpoint, whenever the process was killed");
        println!("\nresumed");
    }
    learner.checkpoint = Some(Checkpoint { path: checkpoint, every: Some(2) });
    let images = Augmented::new(train)
        .then(RandomCrop { padding: 2, fill: 0.0 })
        .then(RandomFlip)
        .then(RandomErase { most: 2, share: 0.2, range: (-1.0, 1.0) });
    let options = LoaderOptions { batch_size: 20, workers: 2, ..LoaderOptions::default() };
    let mut recorder = Recorder::new();
    let mut metrics =
        Metrics::new().add("accuracy", |scores: &Tensor, (_, y): &ImageBatch| accuracy(scores, y));
    let loaders = DataLoaders::new(images, valid, options);
    learner.fit(EPOCHS, &loaders, (OneCycle::new(1e-2), &mut metrics, &mut recorder, Say)).expect("training");
    let mut state = state_dict(&learner.task.model);
    let numbers = |numbers: Vec<f32>| Value::F32(minai::array::Array::new(numbers.clone(), &[numbers.len()]));
    state.insert("losses".into(), numbers(recorder.losses));
    let rows = metrics.rows.iter().flat_map(|row| row.train.iter().chain(&row.valid));
    state.insert("metrics".into(), numbers(rows.copied().collect()));
    save(folder.join("end.safetensors"), &state, &Metadata::default()).expect("saving");
}

/// Runs the training in a process of its own; kills it `pause` behind its batch number `kill_at`, if it comes so far.
/// Says how many batches there were, whether it was killed, and whether it had gone on from a checkpoint.
fn run(folder: &Path, kill_at: Option<(usize, Duration)>) -> (usize, bool, bool) {
    let program = std::env::current_exe().expect("this test");
    let mut child = Command::new(program)
        .args([NAME, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("this test, once more");
    let (mut batches, mut killed, mut resumed) = (0, false, false);
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok) {
        resumed |= line == "resumed";
        batches += usize::from(line.starts_with("batch"));
        if let Some((at, pause)) = kill_at
            && batches == at
            && !killed
        {
            std::thread::sleep(pause);
            child.kill().expect("a process that runs");
            killed = true;
        }
    }
    let status = child.wait().expect("a process");
    assert!(killed || status.success(), "the training failed: {status}");
    (batches, killed, resumed)
}

#[test]
fn killed_training_ends_with_the_same_bits() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return train(Path::new(&folder));
    }
    let (alone, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (all, ..) = run(alone.path(), None);
    assert_eq!(all, EPOCHS * 14, "12 batches of the training set and two of the validation set");

    // Where, is random, and other in each run of the test; what it printed says where it was.
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut rng = Generator::manual_seed(seed);
    let (mut kills, mut resumes) = (0, 0);
    loop {
        assert!(kills < 100, "the training does not get anywhere");
        let (at, micros) = (rng.randint(1, 13, &[1])[[0]] as usize, rng.randint(0, 4000, &[1])[[0]] as u64);
        let (batches, was_killed, resumed) = run(killed.path(), Some((at, Duration::from_micros(micros))));
        println!("killed: {was_killed}, {micros} µs behind its batch {at} ({batches} in all), seed {seed}");
        kills += usize::from(was_killed);
        resumes += usize::from(resumed);
        if killed.path().join("end.safetensors").exists() {
            break;
        }
    }
    assert!(kills >= 2 && resumes >= 2, "{kills} kills, {resumes} resumes");
    let end = |folder: &Path| std::fs::read(folder.join("end.safetensors")).unwrap();
    assert!(end(alone.path()) == end(killed.path()), "other weights, losses or metrics than without kills");
}
