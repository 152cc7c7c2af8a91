//! The comparison with PyTorch.

use crate::{Arguments, peer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Runs this program and PyTorch's in turn, and prints for each name the median of the ratios and their range.
pub fn compare(python: &str, arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let ours = std::env::current_exe()?;
    let mut ratios: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    for round in 1..=arguments.rounds.max(1) {
        eprintln!("round {round} of {}", arguments.rounds.max(1));
        let mut command = Command::new(&ours);
        command.args(arguments.half.then_some("--half"));
        let minai = times(&mut command, arguments)?;
        let torch = times(Command::new(python).arg(peer()), arguments)?;
        for (name, minai) in minai {
            if let Some(torch) = torch.get(&name) {
                ratios.entry(name).or_default().push([minai, *torch]);
            }
        }
    }
    println!("{:<34} {:>10} {:>10} {:>7}   range", "median ms, minai / PyTorch", "minai", "PyTorch", "ratio");
    for (name, pairs) in &ratios {
        let sorted = |f: fn(&[f64; 2]) -> f64| {
            let mut values: Vec<f64> = pairs.iter().map(f).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let [ours, theirs, ratio] =
            [sorted(|pair| pair[0]), sorted(|pair| pair[1]), sorted(|pair| pair[0] / pair[1])];
        let middle = pairs.len() / 2;
        let (least, most) = (ratio[0], ratio[ratio.len() - 1]);
        println!(
            "{name:<34} {:>10.3} {:>10.3} {:>7.2}   {least:.2} to {most:.2}",
            ours[middle], theirs[middle], ratio[middle]
        );
    }
    Ok(())
}

/// The milliseconds in the JSON object that a program prints last.
fn times(
    command: &mut Command,
    arguments: &Arguments,
) -> Result<BTreeMap<String, f64>, Box<dyn std::error::Error>> {
    command.args(["--threads", &arguments.threads.to_string()]);
    if !arguments.only.is_empty() {
        command.args(["--only", &arguments.only.join(",")]);
    }
    if arguments.sd {
        command.arg("--sd");
    }
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().filter(|_| output.status.success());
    let result: Value =
        serde_json::from_str(last.ok_or_else(|| format!("{command:?} failed: {}", output.status))?)?;
    let ms = result["ms"].as_object().ok_or("no times in its output")?;
    Ok(ms.iter().filter_map(|(name, ms)| Some((name.clone(), ms.as_f64()?))).collect())
}
