// Owned by notebooks/14_resnet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 1b8c39b6852d3eb7
//! What each layer of a model makes, holds and computes.

// %% notebooks/14_resnet.ipynb su-types
use minai::nn::{Layer, Module, Parameter, Parts, Pass};
use minai::tensor::Tensor;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// One layer in a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The names that lead to it: `0.first.conv`.
    pub path: String,
    /// What kind of layer it is.
    pub layer: &'static str,
    /// The shape of its input, of the first one if there are several.
    pub input: Vec<usize>,
    /// The shape of its output.
    pub output: Vec<usize>,
    /// The number of its parameters, those of layers inside included.
    pub parameters: usize,
    /// How many multiplications its weights take part in for one example, those of layers inside included.
    pub multiplications: usize,
}

// %% notebooks/14_resnet.ipynb su-inside
impl Row {
    fn is_inside(&self, path: &str) -> bool {
        self.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
    }
}

// %% notebooks/14_resnet.ipynb su-table
/// A table of a model's layers, in the order in which they finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The shape of the model's input.
    pub input: Vec<usize>,
    /// A row for each layer, the layers inside it before it.
    pub rows: Vec<Row>,
}

/// How many of the rows a row is inside of. (A name may have points itself, so they are not counted: `down_blocks.0`.)
fn depth(rows: &[Row], row: &Row) -> usize {
    rows.iter().filter(|outer| row.is_inside(&outer.path)).count()
}

// %% notebooks/14_resnet.ipynb su-total
/// The parameters and the multiplications of the rows that are inside no other one.
fn total(rows: &[Row]) -> (usize, usize) {
    let outer = rows.iter().filter(|row| depth(rows, row) == 0);
    outer.fold((0, 0), |(p, m), row| (p + row.parameters, m + row.multiplications))
}

impl Summary {
    /// The parameters of all layers of the model, and the multiplications for one example.
    pub fn total(&self) -> (usize, usize) {
        total(&self.rows)
    }
}

// %% notebooks/14_resnet.ipynb su-levels
/// The rows for which `choose` has a path, under that path.
fn select(rows: &[Row], choose: impl Fn(&Row) -> Option<String>) -> Vec<Row> {
    rows.iter().filter_map(|row| Some(Row { path: choose(row)?, ..row.clone() })).collect()
}

impl Summary {
    /// The same without the rows that lie deeper than `levels`: 1 leaves only the layers of the model itself.
    pub fn levels(&self, levels: usize) -> Summary {
        let shallow = |row: &Row| (depth(&self.rows, row) < levels).then(|| row.path.clone());
        Summary { input: self.input.clone(), rows: select(&self.rows, shallow) }
    }

    /// The layers inside the one of this path, as if it were the model.
    ///
    /// # Panics
    /// If there is no such layer.
    #[track_caller]
    pub fn inside(&self, path: &str) -> Summary {
        let outer = self.rows.iter().find(|row| row.path == path);
        let input = outer.unwrap_or_else(|| panic!("Summary::inside: no layer `{path}`")).input.clone();
        let inner = |row: &Row| row.is_inside(path).then(|| row.path[path.len() + 1..].to_owned());
        Summary { input, rows: select(&self.rows, inner) }
    }
}

// %% notebooks/14_resnet.ipynb su-summary
fn size(parameter: &Parameter) -> usize {
    parameter.shape().iter().product()
}

/// How many multiplications the weight takes part in to compute the output `y` for `n` examples. Each of its values is
/// used once for each place of the output.
fn uses(weight: &Parameter, y: &Tensor, n: usize) -> usize {
    let (rows, last) = (weight.shape()[0], y.shape().last().map_or(1, |&size| size.max(1)));
    // A place has a value for each row of the weight, or only the last axis (attention, which has three such weights in one).
    let width = if y.shape().contains(&rows) { rows } else { last };
    size(weight) * (y.data.len() / width) / n
}

// %% notebooks/14_resnet.ipynb su-row
/// The row of a module that has computed `y`; `rows` has those of the layers inside it.
fn row(rows: &[Row], path: &str, module: &dyn Module, input: Option<&Tensor>, y: &Tensor, n: usize) -> Row {
    let parameters = Parts::of(module).parameters;
    // A parameter of the module itself has no point in its name.
    let is_own = |name: &str| !name.contains('.') && module.name() != "Embedding"; // whose rows are copied
    let own = parameters.iter().filter(|(name, weight)| is_own(name) && weight.shape().len() > 1);
    let inside: Vec<Row> = rows.iter().filter(|row| row.is_inside(path)).cloned().collect();
    Row {
        path: path.to_owned(),
        layer: module.name(),
        input: input.map_or(vec![], |x| x.shape().to_vec()),
        output: y.shape().to_vec(),
        parameters: parameters.iter().map(|(_, parameter)| size(parameter)).sum(),
        multiplications: own.map(|(_, weight)| uses(weight, y, n)).sum::<usize>() + total(&inside).1,
    }
}

// %% notebooks/14_resnet.ipynb su-run
/// What each layer of `model` does with `x`, whose first axis counts examples. The model is used, not trained.
pub fn summary(model: &dyn Layer, x: &Tensor) -> Summary {
    summary_of(x, |pass| model.forward(x, pass))
}

/// The same for a model that takes more than `x`: `run` sends everything through it, as in
/// `summary_of(&x, |pass| unet.forward(&x, &t, &context, pass))`.
pub fn summary_of(x: &Tensor, run: impl FnOnce(&mut Pass) -> Tensor) -> Summary {
    let rows = Rc::new(RefCell::new(Vec::new()));
    let (seen, n) = (rows.clone(), x.shape()[0].max(1));
    let mut pass = Pass::eval();
    pass.hook = Some(Box::new(move |path, module, inputs, y| {
        let next = row(&seen.borrow(), path, module, inputs.first().copied(), y, n);
        seen.borrow_mut().push(next);
    }));
    run(&mut pass);
    drop(pass);
    Summary { input: x.shape().to_vec(), rows: rows.take() }
}

// %% notebooks/14_resnet.ipynb su-display
/// 1234567 as `1,234,567`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits"));
    groups.collect::<Vec<_>>().join(",")
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.path.len()).max().unwrap_or(0).max(5);
        let mut line = |path: &str, layer: &str, output: &str, parameters: &str, multiplications: &str| {
            writeln!(f, "{path:width$}  {layer:12} {output:20} {parameters:>11} {multiplications:>15}")
        };
        line("path", "layer", "output", "parameters", "multiplications")?;
        line("", "input", &format!("{:?}", self.input), "", "")?;
        for Row { path, layer, output, parameters, multiplications, .. } in &self.rows {
            line(path, layer, &format!("{output:?}"), &thousands(*parameters), &thousands(*multiplications))?;
        }
        let (parameters, multiplications) = self.total();
        line("total", "", "", &thousands(parameters), &thousands(multiplications))
    }
}
