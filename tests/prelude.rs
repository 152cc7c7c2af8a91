//! The README's training needs one line of imports.

use minai::prelude::*;

#[test]
fn the_prelude_is_enough_for_a_training() {
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/fashion-mnist-sample");
    let fashion =
        minai::datasets::load_fashion(&sample, &[minai::datasets::SAMPLE_SPLIT]).expect("the sample");
    let fashion = fashion.normalized();
    let (train, valid) = (fashion.train.split_at(500).0, fashion.test.split_at(100).0);
    let loaders = DataLoaders::new(train, valid, LoaderOptions { batch_size: 50, ..Default::default() });
    let mut rng = Generator::manual_seed(42);
    let model = Sequential::new()
        .add(Flatten)
        .add(Linear::new(&mut rng, 784, 100))
        .add(Relu)
        .add(Linear::new(&mut rng, 100, 10));
    let optimizer = Optimizer::new(&model, AdamW::default());
    let mut learner = Learner::new("fashion", Classifier { model }, optimizer, rng);
    let metrics = Metrics::new().add("accuracy", |scores, (_, y)| accuracy(scores, y));
    learner.fit(2, &loaders, (OneCycle::new(0.01), metrics)).expect("training");
    let right = evaluate(&learner.task.model, &loaders.valid).accuracy;
    assert!(right > 0.5, "{right} of the answers are right after two epochs on 500 images");
    let folder = tempfile::tempdir().expect("a folder");
    save(folder.path().join("fashion.safetensors"), &state_dict(&learner.task.model), &Metadata::new())
        .expect("saving");
}

#[test]
fn the_crates_page_names_each_module_with_its_lesson() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../minai/src/lib.rs");
    let text = std::fs::read_to_string(path).expect("the crate's root");
    let list = text.split("// nbs:modules begin").nth(1).expect("the list of modules");
    let mut row = "";
    let mut modules = 0;
    for line in list.lines().take_while(|line| *line != "// nbs:modules end") {
        if let Some(lesson) = line.strip_prefix("// ") {
            let number = lesson.split('_').next().unwrap_or_default();
            let start = format!("//! | [{number}: ");
            row =
                text.lines().find(|l| l.starts_with(&start)).unwrap_or_else(|| panic!("no row for {lesson}"));
        }
        if let Some(name) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) {
            assert!(row.contains(&format!("[`{name}`]")), "`{name}` is missing in: {row}");
            modules += 1;
        }
    }
    assert!(modules > 50, "{modules} modules");
}
