// Owned by notebooks/14_resnet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 7154d8fbeea39a6e
//! What each layer of a model makes, holds and computes.

// %% notebooks/14_resnet.ipynb su-types
use minai::nn::{Layer, Parts, Pass};
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
    /// The shape of its input.
    pub input: Vec<usize>,
    /// The shape of its output.
    pub output: Vec<usize>,
    /// How many numbers its parameters have, those of layers inside included.
    pub parameters: usize,
    /// How many multiplications its weights take part in for one example, those of layers inside included.
    pub multiplications: usize,
}

/// A table of a model's layers, in the order in which they finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The shape of the model's input.
    pub input: Vec<usize>,
    /// A row for each layer, the layers inside it before it.
    pub rows: Vec<Row>,
}

impl Summary {
    /// The same without the rows that lie deeper than `levels`: 1 leaves only the layers of the model itself.
    pub fn levels(&self, levels: usize) -> Summary {
        let shallow = |row: &&Row| row.path.matches('.').count() < levels;
        Summary { input: self.input.clone(), rows: self.rows.iter().filter(shallow).cloned().collect() }
    }

    /// The layers inside the one of this path, as if it were the model.
    ///
    /// # Panics
    /// If there is no such layer.
    #[track_caller]
    pub fn inside(&self, path: &str) -> Summary {
        let outer = self.rows.iter().find(|row| row.path == path);
        let input = outer.unwrap_or_else(|| panic!("Summary::inside: no layer `{path}`")).input.clone();
        let inner = |row: &Row| {
            let path = row.path.strip_prefix(path)?.strip_prefix('.')?.to_owned();
            Some(Row { path, ..row.clone() })
        };
        Summary { input, rows: self.rows.iter().filter_map(inner).collect() }
    }

    /// The parameters of all layers of the model, and the multiplications for one example.
    pub fn total(&self) -> (usize, usize) {
        let outer = self.rows.iter().filter(|row| !row.path.contains('.'));
        outer.fold((0, 0), |(p, m), row| (p + row.parameters, m + row.multiplications))
    }
}

// %% notebooks/14_resnet.ipynb su-summary
/// What each layer of `model` does with `x`, whose first axis counts examples. The model is used, not trained.
pub fn summary(model: &dyn Layer, x: &Tensor) -> Summary {
    let rows = Rc::new(RefCell::new(Vec::new()));
    let (seen, n) = (rows.clone(), x.shape()[0].max(1));
    let hook = move |path: &str, layer: &dyn Layer, x: &Tensor, y: &Tensor| {
        let (inside, mut rows) = (format!("{path}."), seen.borrow_mut());
        let parameters = Parts::of(layer).parameters;
        // A parameter of the layer itself has no point in its name. Each of a weight's numbers is used once for each
        // place of the output: its numbers, divided by those of one place, one for each row of the weight.
        let own = parameters.iter().filter(|(name, weight)| !name.contains('.') && weight.shape().len() > 1);
        let uses = own.map(|(_, weight)| weight.data().len() * (y.data.len() / weight.shape()[0]) / n);
        let below = rows
            .iter()
            .filter(|row: &&Row| row.path.strip_prefix(&inside).is_some_and(|rest| !rest.contains('.')));
        let multiplications = uses.sum::<usize>() + below.map(|row| row.multiplications).sum::<usize>();
        let (path, layer, parameters) = (
            path.to_owned(),
            layer.name(),
            parameters.iter().map(|(_, parameter)| parameter.data().len()).sum(),
        );
        let [input, output] = [x, y].map(|tensor| tensor.shape().to_vec());
        rows.push(Row { path, layer, input, output, parameters, multiplications });
    };
    let mut pass = Pass::eval();
    pass.hook = Some(Box::new(hook));
    model.forward(x, &mut pass);
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
